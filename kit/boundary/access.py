"""What opens an rpc, and how large a request may be: for the gateway that applies both first, and for the boundary of each service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pmp.options.v1 import options_pb2 as options

SCOPES: Final[Mapping[options.Access.ValueType, tuple[str, ...]]] = {
    options.ACCESS_TRACK: ("track", "site", "admin"),
    options.ACCESS_SITE: ("site", "admin"),
    options.ACCESS_READ: ("read", "admin"),
    options.ACCESS_ADMIN: ("admin",),
}
"""Token scopes that open an rpc, by its access option; none opens an INTERNAL one. An internal caller needs none."""
MAX_REQUEST_BYTES: Final = 1_048_576
"""Where the proto says nothing else."""
