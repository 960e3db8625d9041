"""Builds the responses of the reading rpcs, and parses their periods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from pmp.journeys.v1 import journeys_pb2 as pb

from kit.errors import InvalidRequest, Violation
from kit.idempotency import id_of
from kit.times import timestamp
from services.journeys import journey
from services.journeys.funnel import Step
from services.journeys.rules import DIRECT, SessionFacts
from services.journeys.shares import Share


def period(request: pb.GetAttributionRequest | pb.GetFunnelRequest, now: datetime) -> tuple[datetime | None, datetime]:
    """Returns the start, None for no bound, and the end of a request's period.

    Raises:
        InvalidRequest: a time is out of range, or the period ends before it begins.
    """
    since = _time("from", getattr(request, "from")) if request.HasField("from") else None  # a keyword of Python
    until = _time("to", request.to) if request.HasField("to") else now
    if since is not None and request.HasField("to") and since >= until:
        raise InvalidRequest([Violation("to", "to is not after from")])
    return since, until


def _time(field: str, timestamp: Timestamp) -> datetime:
    try:
        return timestamp.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise InvalidRequest([Violation(field, f"{field} is out of range")]) from None


def duration(time: timedelta | None) -> Duration | None:
    """Converts a time to a message; None for None."""
    if time is None:
        return None
    message = Duration()
    message.FromTimedelta(time)
    return message


def window(request: pb.GetFunnelRequest) -> timedelta | None:
    """Returns the longest time a chain may take; None for any.

    Raises:
        InvalidRequest: it is not longer than 0.
    """
    if not request.HasField("window"):
        return None
    try:
        longest = request.window.ToTimedelta()
    except (ValueError, OverflowError):
        raise InvalidRequest([Violation("window", "window is out of range")]) from None
    if longest <= timedelta(0):
        raise InvalidRequest([Violation("window", "window is not longer than 0")])
    return longest


def touchpoint(row: journey.Touchpoint, purchases: Sequence[journey.Purchase]) -> pb.JourneyTouchpoint:
    """Returns a touchpoint as a journey shows it."""
    return pb.JourneyTouchpoint(
        id=id_of(row.id),
        timestamp=timestamp(row.timestamp),
        stage=journey.stage_shown(row.stage, row.origin, row.id, purchases),
        touchpoint=row.touchpoint,
        action=row.action,
        source=row.source or "",
        medium=row.medium or "",
        campaign=row.campaign or "",
        page_url=row.page_url or "",
        session_id=row.session_id or "",
        value=float(row.value),
        time_spent=row.time_spent,
    )


def browser_session(seen: journey.PersonSession, known: SessionFacts | None) -> pb.JourneySession:
    """Returns a session as a journey shows it; without a source if only an order is known of it."""
    answer = pb.JourneySession(
        session_id=seen.identifier.partition(":")[2],
        started_at=timestamp(seen.started_at),
        ended_at=timestamp(seen.ended_at),
        touchpoints=seen.touchpoints,
    )
    if known is not None:
        answer.source, answer.medium, answer.campaign = known.source or "", known.medium or "", known.campaign or ""
        if known.source is None:
            answer.source = DIRECT
    return answer


def reached(stages: Iterable[tuple[str, datetime]]) -> list[pb.ReachedStage]:
    """Returns the stages with their times."""
    return [pb.ReachedStage(stage=stage, reached_at=timestamp(at)) for stage, at in stages]


def shares(found: Mapping[str, Share]) -> list[pb.AttributionShare]:
    """Returns the shares, largest first."""
    ordered = sorted(found.items(), key=lambda item: (-item[1].amount, -item[1].orders, item[0]))
    return [pb.AttributionShare(name=name, amount=float(share.amount), orders=float(share.orders)) for name, share in ordered]


def total(found: Mapping[str, Share]) -> float:
    """Returns the sum of the shares."""
    return float(sum((share.amount for share in found.values()), Decimal(0)))


def funnel(steps: Iterable[Step]) -> pb.GetFunnelResponse:
    """Returns the counted funnel."""
    return pb.GetFunnelResponse(
        steps=[
            pb.FunnelStep(
                step=step.name,
                people=step.people,
                drop_off=step.drop_off,
                conversion=step.conversion,
                median_time=duration(step.median_time),
            )
            for step in steps
        ]
    )
