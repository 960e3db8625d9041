"""What may come in, and what of it may go on: pure decisions about one event, before it reaches the log and behind it."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from pmp.ingestion.v1.event_pb2 import Event

from kit.errors import Violation
from kit.rules import Period, wrong_struct, wrong_time
from kit.scrubbing import Scrubber

_NETWORK_BITS: Final = {4: 24, 6: 48}


def violations(event: Event, allowed: Period) -> list[Violation]:
    """Rules that the proto can't say: a time that the clock allows, the size and depth of its metadata.

    Args:
        event: as the client sent it.
        allowed: when it may have happened.
    """
    found: list[Violation] = []
    if (wrong := wrong_time("timestamp", event.timestamp, allowed)) and event.HasField("timestamp"):
        found.append(wrong)
    if wrong := wrong_struct("metadata", event.metadata):
        found.append(wrong)
    return found


def reduce(event: Event, scrubber: Scrubber) -> None:
    """Takes from an event what the mesh does not keep: e-mail, host part of the address, what names a person in its texts.

    Args:
        event: as the client sent it; changed in place.
        scrubber: knows what does.
    """
    event.email = ""
    user_id, address = event.user_id, event.ip_address
    if user_id.startswith("0") and user_id.isdecimal() and user_id.isascii():
        event.user_id = str(int(user_id))  # rows of a person are found by its id
    if address:
        event.ip_address = network(address)
    scrubber.scrub(event)


def complete(event: Event, address: str) -> None:
    """Fills in what the client left out.

    Args:
        event: as it lies in the log; changed in place.
        address: the network of the browser that called; empty when a server did.
    """
    event.ip_address = event.ip_address or address
    event.platform = event.platform or "wordpress"
    # Finer than what databases keep: the history would not be what the topic told.
    if finer := event.timestamp.nanos % 1000:
        event.timestamp.nanos -= finer


def visitor_of(event: Event) -> str:
    """What a browser calls its visitor, beside the visit; empty for nothing."""
    fields = event.metadata.fields
    return fields["visitor_id"].string_value if "visitor_id" in fields else ""


@lru_cache(4096)
def network(address: str) -> str:
    """The network of an address: /24 of IPv4, /48 of IPv6; empty for none."""
    if not address:
        return ""
    parsed = ip_address(address.partition("%")[0])
    parsed = (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed
    return str(ip_network((parsed, _NETWORK_BITS[parsed.version]), strict=False).network_address)
