"""Calls Klaviyo's API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from services.destinations.answers import retry_after
from services.destinations.email_tool import RefusedError
from services.destinations.kind import Outcome, Result
from services.destinations.klaviyo.answers import FoundProfiles, ImportedProfile, Profile, refusal
from services.destinations.klaviyo.options import KlaviyoOptions

REVISION: Final = "2026-07-15"
"""The version of the API."""

_CONTENT_TYPE: Final = "application/vnd.api+json"
_SUBSCRIPTIONS: Final = {"additional-fields[profile]": "subscriptions", "fields[profile]": "subscriptions"}
_Answer = TypeVar("_Answer", bound=BaseModel)


class KlaviyoClient:
    """Makes requests.

    All methods raise `RefusedError`, and errors of `httpx` where no answer came.
    """

    def __init__(self, options: KlaviyoOptions, http: httpx.AsyncClient) -> None:
        self._address = options.address
        self._key = options.api_key
        self._http = http

    async def post(self, path: str, document: Mapping[str, Any], parameters: Mapping[str, str] | None = None) -> bytes:
        """Posts a document and returns the answer's body, which may be empty."""
        headers = {**self._headers(), "content-type": _CONTENT_TYPE}
        content = json.dumps(document)
        return _body(await self._http.post(f"{self._address}{path}", content=content, params=parameters, headers=headers))

    async def import_profile(self, document: Mapping[str, Any]) -> Profile:
        """Creates or updates a profile, and returns it."""
        return _read(ImportedProfile, await self.post("/api/profile-import", document, _SUBSCRIPTIONS)).data

    async def profiles(self, email: str) -> list[Profile]:
        """Returns the profiles with an address."""
        parameters = {"filter": f"equals(email,{json.dumps(email)})", **_SUBSCRIPTIONS}
        response = await self._http.get(f"{self._address}/api/profiles", params=parameters, headers=self._headers())
        return list(_read(FoundProfiles, _body(response)).data)

    async def change(self, profile: Profile, document: Mapping[str, Any]) -> None:
        """Changes a profile."""
        headers = {**self._headers(), "content-type": _CONTENT_TYPE}
        path = f"{self._address}/api/profiles/{quote(profile.id, safe='')}"
        _body(await self._http.patch(path, content=json.dumps(document), headers=headers))

    async def check(self) -> None:
        """Makes sure that the key is accepted."""
        parameters = {"page[size]": "1", "fields[profile]": "created"}
        _body(await self._http.get(f"{self._address}/api/profiles", params=parameters, headers=self._headers()))

    def _headers(self) -> Mapping[str, str]:
        return {"authorization": f"Klaviyo-API-Key {self._key.get_secret_value()}", "revision": REVISION, "accept": _CONTENT_TYPE}


def _body(response: httpx.Response) -> bytes:
    if response.is_success:
        return response.content
    wait = retry_after(response.headers, datetime.now(UTC))
    raise RefusedError(refusal(response.status_code, response.content, wait))


def _read(answer: type[_Answer], body: bytes) -> _Answer:
    try:
        return answer.model_validate_json(body)
    except ValidationError:
        raise RefusedError(Result(Outcome.REJECTED, "an answer without the subscription of a profile")) from None
