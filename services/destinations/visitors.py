"""The browser with which something was done, as far as its visitor agreed to be known. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson
from google.protobuf.struct_pb2 import Struct
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.journeys.v1.change_pb2 import JourneyChanged
from pmp.purchases.v1.change_pb2 import PurchaseChanged

from services.destinations.kind import Outgoing

_TEXTS: Final = ("ga_client_id", "ga_session_id", "fbp", "fbc", "user_agent", "page_url")
_REFUSAL: Final = "global_privacy_control"


class Visitor(NamedTuple):
    """A browser; empty texts for what is not known of it."""

    ga_client_id: str
    ga_session_id: str
    fbp: str
    fbc: str
    user_agent: str
    page_url: str
    """The page on which it happened."""
    session_id: str
    """The mesh's own id of its session."""
    refuses_sharing: bool
    """It sent Global Privacy Control, or its visitor denied sharing in the site's consent tool."""


def visitor_of(outgoing: Outgoing) -> Visitor:
    """Returns the browser that a delivery is about."""
    match outgoing.message:
        case EventStored(event=event):
            known = {**_known(event.metadata), "user_agent": event.user_agent, "page_url": event.page_url}
            return _visitor({**known, _REFUSAL: event.global_privacy_control}, event.session_id)
        case PurchaseChanged() as order:
            return _visitor(orjson.loads(outgoing.sealed.get("visitor") or b"{}"), order.session_id)
        case JourneyChanged(conversion=conversion):
            return _visitor(_known(conversion.metadata), conversion.session_id)
        case _:
            return _visitor({}, "")


def _known(metadata: Struct) -> Mapping[str, Any]:
    fields = metadata.fields
    texts = {name: fields[name].string_value for name in _TEXTS if name in fields}
    return {**texts, _REFUSAL: _REFUSAL in fields and fields[_REFUSAL].bool_value}


def _visitor(known: Mapping[str, Any], session_id: str) -> Visitor:
    """A client may report anything: what is no text counts as unknown."""
    texts = (value if isinstance(value := known.get(name), str) else "" for name in _TEXTS)
    return Visitor(*texts, session_id=session_id, refuses_sharing=bool(known.get(_REFUSAL)))
