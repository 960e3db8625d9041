"""Pure decisions about one event, before and after the log: what is accepted, compared, completed."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from pmp.ingestion.v1.event_pb2 import Event

from kit.errors import Violation
from kit.rules import Period, wrong_struct, wrong_time
from kit.scrubbing.scrubber import Scrubber

REDUCTION: Final = 1
"""Version of what `reduce` leaves of an event, raised with each change: contents of different versions are not compared."""

CARRIED: Final = ("user_id", "ip_address", "user_agent", "utm_parameters", "global_privacy_control")
"""Fields that depend on the sender: never compared, and completed by a repetition."""

_NOT_COMPARED: Final = (*CARRIED, "historical")
"""A repetition does not decide whether an event is history."""

TAGS: Final = ("ga_client_id", "ga_session_id", "fbp", "fbc")
"""Properties by which other systems know the browser. Its requests carry them, as they carry its user agent."""

_NETWORK_BITS: Final = {4: 24, 6: 48}


def violations(event: Event, allowed: Period) -> list[Violation]:
    """Returns violations of rules that a proto can't express: the time, the size and depth of the metadata.

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
    """Removes what the mesh does not store: the e-mail address, the host part of the IP address, personal data in texts.

    Args:
        event: as the client sent it; changed in place.
        scrubber: removes personal data from texts.
    """
    user_id, address = event.user_id, event.ip_address
    if event.email:
        event.email = ""
    if user_id[:1] == "0" and user_id.isdecimal() and user_id.isascii():
        event.user_id = str(int(user_id))  # rows of a person are found by its id
    if address:
        event.ip_address = network(address)
    scrubber.scrub(event)


def fold(event: Event) -> None:
    """Merges the context of a server into the event that it forwards. Only the server states who is logged in.

    Args:
        event: with a context; changed in place.
    """
    context = event.context
    event.user_id = context.user_id
    event.ip_address = event.ip_address or context.ip_address
    event.user_agent = event.user_agent or context.user_agent
    event.global_privacy_control = event.global_privacy_control or context.global_privacy_control
    if context.HasField("utm_parameters") and not event.HasField("utm_parameters"):
        event.utm_parameters.CopyFrom(context.utm_parameters)
    for name in TAGS:
        if (tag := getattr(context, name)) and name not in event.metadata.fields:
            event.metadata.fields[name].string_value = tag
    event.ClearField("context")


def content(event: Event, *, from_browser: bool) -> bytes:
    """Returns what identifies an event's content, independent of the sender, serialised.

    Args:
        event: as it is in the log.
        from_browser: a browser reported it, so that its sender may have corrected its time.
    """
    origin = Event()
    origin.CopyFrom(event)
    for name in (*_NOT_COMPARED, "timestamp") if from_browser else _NOT_COMPARED:
        origin.ClearField(name)
    for name in TAGS:
        origin.metadata.fields.pop(name, None)
    if not origin.metadata.fields:
        origin.ClearField("metadata")
    return origin.SerializeToString(deterministic=True)


def fill_in(event: Event, repetition: Event) -> bool:
    """Copies from a repetition what the event lacks; False if it lacks nothing.

    Args:
        event: as it is known; changed in place.
        repetition: the same event as another sender reported it.
    """
    missing = [name for name in CARRIED if _is_given(repetition, name) and not _is_given(event, name)]
    for name in missing:
        if name == "utm_parameters":
            event.utm_parameters.CopyFrom(repetition.utm_parameters)
        else:
            setattr(event, name, getattr(repetition, name))
    return bool(missing)


def _is_given(event: Event, name: str) -> bool:
    value = getattr(event, name)
    return bool(value.ByteSize() if name == "utm_parameters" else value)


def complete(event: Event, address: str) -> None:
    """Fills in what the client left out.

    Args:
        event: as it is in the log; changed in place.
        address: the network of the calling browser; empty if a server called.
    """
    event.ip_address = event.ip_address or address
    event.platform = event.platform or "wordpress"
    # Databases store microseconds: with more digits the history would differ from what was published.
    if finer := event.timestamp.nanos % 1000:
        event.timestamp.nanos -= finer


def visitor_of(event: Event) -> str:
    """Returns a browser's own id of its visitor; empty for none."""
    fields = event.metadata.fields
    return fields["visitor_id"].string_value if "visitor_id" in fields else ""


@lru_cache(4096)
def network(address: str) -> str:
    """Returns the network of an address: /24 of IPv4, /48 of IPv6; empty for none."""
    if not address:
        return ""
    parsed = ip_address(address.partition("%")[0])
    parsed = (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed
    return str(ip_network((parsed, _NETWORK_BITS[parsed.version]), strict=False).network_address)
