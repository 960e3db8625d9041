"""Calls Mailchimp's Marketing API."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast

import httpx

from services.destinations.email_tool import RefusedError
from services.destinations.kind import Outcome, Result
from services.destinations.mailchimp.mapping import refusal
from services.destinations.mailchimp.options import MailchimpOptions


class MailchimpClient:
    """Makes requests, one after the other."""

    def __init__(self, options: MailchimpOptions, http: httpx.AsyncClient) -> None:
        self._address = options.address
        self._key = options.api_key
        self._http = http

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, **parameters: str) -> Mapping[str, Any]:
        """Makes a request and returns the body of its answer, which may be empty.

        Raises:
            RefusedError: the answer is an error.
            httpx.HTTPError: no answer came.
        """
        return _read(await self._request(method, path, body, parameters))

    async def find(self, method: str, path: str, body: Mapping[str, Any] | None = None, **parameters: str) -> Mapping[str, Any] | None:
        """Does as `call` does, and returns None where there is no such resource."""
        response = await self._request(method, path, body, parameters)
        return None if response.status_code == HTTPStatus.NOT_FOUND else _read(response)

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None, parameters: Mapping[str, str]) -> httpx.Response:
        key = httpx.BasicAuth("pmp-mesh", self._key.get_secret_value())
        return await self._http.request(method, f"{self._address}{path}", json=body, params=parameters or None, auth=key)


def _read(response: httpx.Response) -> Mapping[str, Any]:
    found = _body(response)
    if not response.is_success:
        raise RefusedError(refusal(response.status_code, found))
    if found is None:
        raise RefusedError(Result(Outcome.RETRY, "an answer without JSON"))
    return found


def _body(response: httpx.Response) -> Mapping[str, Any] | None:
    if response.status_code == HTTPStatus.NO_CONTENT:
        return {}
    try:
        body: Any = response.json()
    except ValueError:
        return None
    return cast("dict[str, Any]", body) if isinstance(body, dict) else None
