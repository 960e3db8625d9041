"""What may come in, and what of it may go on: pure decisions about one event before it reaches the log."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final, NamedTuple

from pmp.ingestion.v1.event_pb2 import Event

from kit.errors import Violation
from kit.rules import scrubbed, wrong_struct, wrong_time

_NETWORK_BITS: Final = {4: 24, 6: 48}


class Bounds(NamedTuple):
    """What an event may be, at the time of one call."""

    now: float
    """Seconds since 1970."""
    retention: timedelta
    """The site's."""
    max_bytes: int


def violations(event: Event, size: int, bounds: Bounds) -> list[Violation]:
    """Rules that the proto can't say: the size of the event, the size and depth of its metadata, and a time that the clock allows.

    Args:
        event: as the client sent it.
        size: its size in bytes.
        bounds: those of the call.
    """
    found: list[Violation] = []
    if size > bounds.max_bytes:
        found.append(Violation("", f"the event is larger than {bounds.max_bytes} bytes"))
    if event.HasField("timestamp") and (wrong := wrong_time("timestamp", event.timestamp, bounds.retention, bounds.now)):
        found.append(wrong)
    if event.HasField("metadata") and (wrong := wrong_struct("metadata", event.metadata)):
        found.append(wrong)
    return found


def reduce(event: Event, address: str) -> None:
    """Takes from an event what the mesh does not keep: e-mail, host part of the address, personal query parameters.

    Args:
        event: as the client sent it; changed in place.
        address: the caller's own address, for events that come from a browser and don't name one.
    """
    event.email = ""
    if event.user_id.startswith("0") and event.user_id.isdecimal() and event.user_id.isascii():
        event.user_id = str(int(event.user_id))  # rows of a person are found by its id
    # Finer than what databases keep: the history would not be what the topic told.
    if finer := event.timestamp.nanos % 1000:
        event.timestamp.nanos -= finer
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
