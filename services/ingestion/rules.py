"""What may come in, and what of it may go on: pure decisions about one event before it reaches the log."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from google.protobuf.struct_pb2 import Struct, Value
from pmp.ingestion.v1.event_pb2 import Event

from kit.errors import Violation

METADATA_BYTES: Final = 16_384
METADATA_DEPTH: Final = 8

_STRUCT_TAG: Final = b"*"
"""Field 5 of google.protobuf.Value, length-delimited."""
_LIST_TAG: Final = b"2"
"""Field 6 of google.protobuf.Value, length-delimited."""

_AHEAD: Final = timedelta(hours=24)
_NETWORK_BITS: Final = {4: 24, 6: 48}
_REDACTED: Final = "redacted"
_PERSONAL_NAME: Final = re.compile(r"e-?mail|mail$|phone|(first|last|user|full)_?name|address|token|password|passwd|secret", re.IGNORECASE)
_PERSONAL_VALUE: Final = re.compile(r"[^\s@/]+(@|%40)[^\s@/]+\.[^\s@/]+", re.IGNORECASE)


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
    if event.HasField("timestamp"):
        seconds = event.timestamp.seconds
        if seconds > bounds.latest:
            found.append(Violation("timestamp", "timestamp is more than 24 hours ahead"))
        elif seconds < bounds.oldest:
            found.append(Violation("timestamp", "timestamp is older than the site's retention"))
    if event.HasField("metadata"):
        metadata = event.metadata
        serialised = metadata.SerializeToString()
        if len(serialised) > METADATA_BYTES:
            found.append(Violation("metadata", f"metadata is larger than {METADATA_BYTES} bytes"))
        if may_nest(serialised, METADATA_DEPTH) and deeper(metadata, METADATA_DEPTH):
            found.append(Violation("metadata", f"metadata is deeper than {METADATA_DEPTH} levels"))
    return found


def reduce(event: Event, address: str) -> None:
    """Takes from an event what the mesh does not keep: e-mail, host part of the address, personal query parameters.

    Args:
        event: as the client sent it; changed in place.
        address: the caller's own address, for events that come from a browser and don't name one.
    """
    event.email = ""
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


@lru_cache(4096)
def scrubbed(url: str) -> str:
    """The URL without what names a person: credentials, and values of personal parameters or that look like an e-mail address."""
    if not any(mark in url for mark in ("?", "@", "#", "%40")):
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return _PERSONAL_VALUE.sub(_REDACTED, url.partition("?")[0])
    return urlunsplit(
        (
            parts.scheme,
            parts.netloc.rpartition("@")[2],
            _PERSONAL_VALUE.sub(_REDACTED, parts.path),
            _scrubbed_query(parts.query),
            _scrubbed_query(parts.fragment) if "=" in parts.fragment else _PERSONAL_VALUE.sub(_REDACTED, parts.fragment),
        )
    )


def _scrubbed_query(query: str) -> str:
    pairs = parse_qsl(query, keep_blank_values=True)
    if not any(_personal(name, value) for name, value in pairs):
        return query
    return urlencode([(name, _REDACTED if _personal(name, value) else value) for name, value in pairs])


def _personal(name: str, value: str) -> bool:
    return bool(value and (_PERSONAL_NAME.search(name) or _PERSONAL_VALUE.search(value)))


def may_nest(serialised: bytes, levels: int) -> bool:
    """False when a serialised Struct can't be deeper than so many levels, which costs less to see than its depth.

    Each level below the first is a `struct_value` or a `list_value`, and has the tag of that field in the bytes.
    """
    return serialised.count(_STRUCT_TAG) + serialised.count(_LIST_TAG) >= levels


def deeper(struct: Struct, levels: int) -> bool:
    """Whether a Struct has more than so many levels of Structs and lists, itself being the first."""
    if levels < 1:
        return True
    return any(_value_deeper(value, levels) for value in struct.fields.values())


def _value_deeper(value: Value, levels: int) -> bool:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return deeper(value.struct_value, levels - 1)
    if kind == "list_value":
        return levels < 2 or any(_value_deeper(item, levels - 1) for item in value.list_value.values)  # noqa: PLR2004 (a list is a level itself)
    return False
