"""What may come in, and what of it may go on: pure decisions about one event before it reaches the log."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final, NamedTuple

from google.protobuf.struct_pb2 import Struct, Value
from pmp.ingestion.v1.event_pb2 import Event

from kit.errors import Violation
from kit.rules import scrubbed

METADATA_BYTES: Final = 16_384
METADATA_DEPTH: Final = 8

_AHEAD: Final = timedelta(hours=24)
_NETWORK_BITS: Final = {4: 24, 6: 48}


class Bounds(NamedTuple):
    """What an event may be, at the time of one call."""

    oldest: float
    """Seconds since 1970."""
    latest: float
    """Seconds since 1970."""
    max_bytes: int


def bounds(now: float, retention: timedelta, max_bytes: int) -> Bounds:
    """The bounds at a time, in seconds since 1970."""
    return Bounds(now - retention.total_seconds(), now + _AHEAD.total_seconds(), max_bytes)


def violations(event: Event, bounds: Bounds) -> list[Violation]:
    """Rules that the proto can't say: the size of the event, the size and depth of its metadata, and a time that the clock allows."""
    found: list[Violation] = []
    oldest, latest, max_bytes = bounds
    if event.ByteSize() > max_bytes:
        found.append(Violation("", f"the event is larger than {max_bytes} bytes"))
    if event.HasField("timestamp"):
        if event.timestamp.seconds > latest:
            found.append(Violation("timestamp", "timestamp is more than 24 hours ahead"))
        elif event.timestamp.seconds < oldest:
            found.append(Violation("timestamp", "timestamp is older than the site's retention"))
    if event.HasField("metadata"):
        if event.metadata.ByteSize() > METADATA_BYTES:
            found.append(Violation("metadata", f"metadata is larger than {METADATA_BYTES} bytes"))
        if _deeper(event.metadata, METADATA_DEPTH):
            found.append(Violation("metadata", f"metadata is deeper than {METADATA_DEPTH} levels"))
    return found


def reduce(event: Event, address: str) -> None:
    """Takes from an event what the mesh does not keep: e-mail, host part of the address, personal query parameters.

    Args:
        event: as the client sent it; changed in place.
        address: the caller's own address, for events that come from a browser and don't name one.
    """
    event.ClearField("email")
    # Finer than what databases keep: the history would not be what the topic told.
    event.timestamp.nanos -= event.timestamp.nanos % 1000
    event.ip_address = network(event.ip_address or address)
    event.page_url = scrubbed(event.page_url)
    event.referrer = scrubbed(event.referrer)
    event.platform = event.platform or "wordpress"


@lru_cache(4096)
def network(address: str) -> str:
    """The network of an address: /24 of IPv4, /48 of IPv6; empty for none."""
    if not address:
        return ""
    parsed = ip_address(address.partition("%")[0])
    parsed = (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed
    return str(ip_network((parsed, _NETWORK_BITS[parsed.version]), strict=False).network_address)


def _deeper(struct: Struct, levels: int) -> bool:
    if levels < 1:
        return True
    return any(_value_deeper(value, levels) for value in struct.fields.values())


def _value_deeper(value: Value, levels: int) -> bool:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _deeper(value.struct_value, levels - 1)
    if kind == "list_value":
        return levels < 2 or any(_value_deeper(item, levels - 1) for item in value.list_value.values)  # noqa: PLR2004 (a list is a level itself)
    return False
