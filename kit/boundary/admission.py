"""Who may call: callers from inside of the mesh, and those whom the gateway authenticated."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kit.boundary.caller import Call, Method
from kit.errors import Forbidden, Unauthenticated
from kit.settings import MESH_HEADER


class Admission:
    """Admits calls that carry the mesh's own credential and a scope that opens their method.

    Args:
        mesh_tokens: returns the mesh's own credentials that are accepted at this moment.
    """

    def __init__(self, mesh_tokens: Callable[[], Sequence[str]]) -> None:
        self._mesh_tokens = mesh_tokens

    def call(self, method: Method, metadata: Mapping[str, Any]) -> Call:
        """Makes the state of a call from its metadata."""
        return Call(method, metadata, admitted=self._knows(metadata.get(MESH_HEADER, "")))

    def _knows(self, token: str) -> bool:
        sent = token.encode()
        return any(hmac.compare_digest(sent, each.encode()) for each in self._mesh_tokens())


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
