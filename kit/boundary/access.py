"""The token scopes and the request size of an rpc: enforced by the gateway, and again by the boundary of each service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pmp.options.v1 import options_pb2 as options

SCOPES: Final[Mapping[options.Access.ValueType, tuple[str, ...]]] = {
    options.ACCESS_TRACK: ("track", "site", "admin"),
    options.ACCESS_SITE: ("site", "admin"),
    options.ACCESS_READ: ("read", "admin"),
    options.ACCESS_ADMIN: ("admin",),
    options.ACCESS_LINK: ("link",),
    options.ACCESS_SIGNED: ("signed",),
}
"""Token scopes that allow an rpc, by its access option; none allows an INTERNAL one. An internal caller needs none.

Callers of a SIGNED one have no token: the gateway states their scope.
"""
MAX_REQUEST_BYTES: Final = 1_048_576
"""The limit unless the proto sets another one."""
