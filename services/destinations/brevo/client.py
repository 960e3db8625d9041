"""Calls Brevo's API."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from services.destinations.brevo.answers import Contact, refusal
from services.destinations.brevo.options import BrevoOptions
from services.destinations.email_tool import RefusedError
from services.destinations.kind import Outcome, Result


class BrevoClient:
    """Makes requests.

    All methods raise `RefusedError`, and errors of `httpx` where no answer came.
    """

    def __init__(self, options: BrevoOptions, http: httpx.AsyncClient) -> None:
        self._address = options.address
        self._key = options.api_key
        self._http = http

    async def post(self, path: str, body: Mapping[str, Any]) -> None:
        """Posts a record."""
        _checked(await self._request("POST", path, body))

    async def contact(self, email: str) -> Contact | None:
        """Returns the contact with an address; None if there is none."""
        response = await self._request("GET", _path(email))
        if response.status_code == HTTPStatus.NOT_FOUND:
            return None
        try:
            return Contact.model_validate_json(_checked(response).content)
        except ValidationError:
            raise RefusedError(Result(Outcome.REJECTED, "an answer without the subscription of a contact")) from None

    async def update(self, contact: Contact, changes: Mapping[str, Any]) -> None:
        """Changes a contact."""
        _checked(await self._request("PUT", f"/contacts/{contact.id}?identifierType=contact_id", changes))

    async def delete(self, email: str) -> bool:
        """Deletes the contact with an address for good; returns whether there was one."""
        response = await self._request("DELETE", _path(email))
        if response.status_code == HTTPStatus.NOT_FOUND:
            return False
        _checked(response)
        return True

    async def has_list(self, list_id: int) -> bool:
        """Returns whether the account has a list."""
        response = await self._request("GET", f"/contacts/lists/{list_id}")
        if response.status_code == HTTPStatus.NOT_FOUND:
            return False
        _checked(response)
        return True

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        headers = {"api-key": self._key.get_secret_value(), "accept": "application/json"}
        return await self._http.request(method, f"{self._address}{path}", json=body, headers=headers)


def _path(email: str) -> str:
    return f"/contacts/{quote(email, safe='')}?identifierType=email_id"


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    raise RefusedError(refusal(response.status_code, response.content, response.headers))
