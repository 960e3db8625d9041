"""The deletion of a user at Google Analytics, as a service account.

References: https://developers.google.com/analytics/devguides/config/admin/v1/rest/v1alpha/properties/submitUserDeletion and
https://developers.google.com/identity/protocols/oauth2/service-account#httprest
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Final

import httpx
import jwt
import orjson
from pydantic import BaseModel, SecretStr

_SCOPE: Final = "https://www.googleapis.com/auth/analytics.edit"
_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_VALID: Final = timedelta(minutes=10)


class ServiceAccount(BaseModel):
    """What is needed of the key file of a service account."""

    client_email: str
    private_key: SecretStr
    private_key_id: str
    token_uri: str = "https://oauth2.googleapis.com/token"  # noqa: S105 (an address)


class UserDeletion:
    """Deletes users of one property.

    Args:
        property_id: the property, digits.
        endpoint: the server of the Admin API.
        http: the client for all requests.
    """

    def __init__(self, property_id: str, endpoint: str, http: httpx.AsyncClient) -> None:
        self._url = f"{endpoint}/v1alpha/properties/{property_id}:submitUserDeletion"
        self._http = http

    async def delete(self, user_id: str, account: ServiceAccount) -> httpx.Response:
        """Deletes all that Google has of a user id, as an account that may edit the property.

        Returns:
            The answer, or the refusal of the account.
        """
        token = await self._token(account)
        if not token.is_success:
            return token
        headers = {"content-type": "application/json", "authorization": f"Bearer {json.loads(token.content)['access_token']}"}
        return await self._http.post(self._url, content=orjson.dumps({"userId": user_id}), headers=headers)

    async def _token(self, account: ServiceAccount) -> httpx.Response:
        now = datetime.now(UTC)
        claims = {"iss": account.client_email, "scope": _SCOPE, "aud": account.token_uri, "iat": now, "exp": now + _VALID}
        headers = {"kid": account.private_key_id}
        assertion = jwt.encode(claims, account.private_key.get_secret_value(), algorithm="RS256", headers=headers)
        return await self._http.post(account.token_uri, data={"grant_type": _GRANT, "assertion": assertion})
