"""Has PayPal itself verify the signature of a webhook, instead of by its certificate.

https://developer.paypal.com/docs/api/webhooks/v1/#verify-webhook-signature_post
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Final

import certifi
import httpx
import orjson
from pydantic import BaseModel, Field, SecretStr, ValidationError

from kit.errors import Unauthenticated, Unavailable

_SECONDS: Final = 8.0
_EARLY: Final = timedelta(seconds=60)
"""A token is renewed so long before its end."""
_UNREADABLE: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})
_HEADERS: Final = {
    "auth_algo": "paypal-auth-algo",
    "cert_url": "paypal-cert-url",
    "transmission_id": "paypal-transmission-id",
    "transmission_sig": "paypal-transmission-sig",
    "transmission_time": "paypal-transmission-time",
}


class _Token(BaseModel):
    access_token: Annotated[str, Field(min_length=1)]
    expires_in: int


class _Verdict(BaseModel):
    verification_status: str


class Postback:
    """Asks PayPal.

    Args:
        api: the address of PayPal's API.
        client_id: of the REST app that the webhook belongs to.
        client_secret: returns the secret of that app at the moment of a call.
        roots: a file of trusted roots in PEM; by default those of the web.
    """

    def __init__(self, api: str, client_id: str, client_secret: Callable[[], SecretStr], roots: Path | None = None) -> None:
        self._api = api.rstrip("/")
        self._credentials = client_id, client_secret
        self._roots = roots or Path(certifi.where())
        self._token = ""
        self._token_ends_at: datetime | None = None

    async def verify(self, webhook_id: str, headers: Mapping[str, str], body: bytes, now: datetime) -> bool:
        """True if PayPal has signed a webhook; False also if it can't read what it is asked.

        Raises:
            Unauthenticated: the body is no JSON.
            Unavailable: PayPal does not answer, or does not accept the credentials.
        """
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError:
            raise Unauthenticated("the body is not JSON in UTF-8, so that PayPal can't have signed it") from None
        stated = {"webhook_id": webhook_id, **{field: headers[name] for field, name in _HEADERS.items()}}
        # The body as it was sent: PayPal's checksum is of its bytes.
        question = orjson.dumps(stated)[:-1] + b',"webhook_event":' + body + b"}"
        try:
            async with httpx.AsyncClient(base_url=self._api, timeout=_SECONDS, verify=self._context) as client:
                authorization = {"authorization": f"Bearer {await self._current_token(client, now)}", "content-type": "application/json"}
                answer = await client.post("/v1/notifications/verify-webhook-signature", content=question, headers=authorization)
                if answer.status_code in _UNREADABLE:
                    return False
                if answer.status_code == HTTPStatus.UNAUTHORIZED:
                    self._token = ""
                return _Verdict.model_validate_json(answer.raise_for_status().content).verification_status == "SUCCESS"
        except (httpx.HTTPError, ValidationError) as error:
            raise Unavailable(f"PayPal does not verify signatures now: {type(error).__name__}") from None

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self._roots))

    async def _current_token(self, client: httpx.AsyncClient, now: datetime) -> str:
        if not self._token or self._token_ends_at is None or self._token_ends_at - _EARLY <= now:
            client_id, client_secret = self._credentials
            answer = await client.post(
                "/v1/oauth2/token", data={"grant_type": "client_credentials"}, auth=(client_id, client_secret().get_secret_value())
            )
            token = _Token.model_validate_json(answer.raise_for_status().content)
            self._token, self._token_ends_at = token.access_token, now + timedelta(seconds=token.expires_in)
        return self._token
