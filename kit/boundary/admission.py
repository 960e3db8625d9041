"""Who may call: callers from inside of the mesh, and those whom the gateway authenticated."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

from kit.boundary.caller import Call, Method
from kit.errors import Forbidden, Unauthenticated
from kit.settings import MESH_HEADER


class Admission:
    """Admits calls that carry the mesh's own credential and a scope that opens their method.

    Args:
        mesh_token: the mesh's own credential.
        rotating: a second credential that is accepted as well.
    """

    def __init__(self, mesh_token: str, rotating: str | None = None) -> None:
        self._token = mesh_token.encode()
        self._rotating = self._token if rotating is None else rotating.encode()

    def call(self, method: Method, metadata: Mapping[str, Any]) -> Call:
        """Makes the state of a call from its metadata."""
        return Call(method, metadata, admitted=self._knows(metadata.get(MESH_HEADER, "")))

    def _knows(self, token: str) -> bool:
        sent = token.encode()
        return hmac.compare_digest(sent, self._token) or hmac.compare_digest(sent, self._rotating)


def admit(call: Call) -> None:
    """Refuses a call that is not from inside of the mesh, or whose scope does not open the method.

    Raises:
        Unauthenticated: it does not carry the mesh's credential.
        Forbidden: the scope does not suffice.
    """
    if not call.admitted:
        message = "this port takes calls from inside the mesh only"
        raise Unauthenticated(message)
    if not call.caller.internal and call.caller.scope not in call.method.scopes:
        message = "the token's scope does not open this method"
        raise Forbidden(message)
