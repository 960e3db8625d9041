"""Which notices an owner wants: what the kinds that send them have in common. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

from pmp.destinations.v1.notice_pb2 import AlarmChanged, PeriodEnded
from pydantic import Field

from kit.times import moment
from services.destinations.kind import Message, Options, Wanted
from services.destinations.owner.rendering import Rendered, alarm, summary
from services.destinations.owner.texts import Language

_PERIODS: Final = {"week": "weekly", "month": "monthly"}


class OwnerOptions(Options):
    """What the owner wants to be sent, and how it is worded."""

    language: Language = "en"
    """en or de."""
    shop: Annotated[str, Field(min_length=1, max_length=100)] = "pmp-mesh"
    """How subjects begin."""
    summaries: Sequence[Literal["weekly", "monthly"]] = ()
    """Which summaries are sent."""
    hour: Annotated[int, Field(ge=3, le=23)] = 7
    """The hour of the day after a week or month at which its summary is sent, where the site is. The day is closed at 3."""
    alarms: bool = True
    """Whether alarms are sent, when they begin and when they end."""


def wanted(options: OwnerOptions, message: Message) -> Iterator[Wanted]:
    """Yields what the owner is sent of a notice."""
    if isinstance(message, PeriodEnded) and _PERIODS.get(message.period) in options.summaries:
        key = f"{_PERIODS[message.period]}:{message.name}"
        yield Wanted("summary", key, moment(message.at), not_before=_hour_of(message, options.hour))
    elif isinstance(message, AlarmChanged) and options.alarms:
        name, began = AlarmChanged.Alarm.Name(message.alarm), moment(message.since).isoformat()
        about = f"{name}:{message.destination}"
        yield Wanted("alarm", f"{about}:{began}:{'ended' if message.ended else 'began'}", moment(message.at), about)


def rendered(options: OwnerOptions, message: Message) -> Rendered:
    """Returns what the owner reads of a notice.

    Raises:
        TypeError: it is no notice for the owner.
    """
    if isinstance(message, PeriodEnded):
        return summary(message, options.shop, options.language)
    if isinstance(message, AlarmChanged):
        return alarm(message, options.shop, options.language)
    raise TypeError(type(message).__name__)


def _hour_of(message: PeriodEnded, hour: int) -> datetime:
    """Returns an hour of the day on which a period was closed, where the site is."""
    zone = ZoneInfo(message.dashboard.timezone or "UTC")
    return datetime.combine(moment(message.at).astimezone(zone).date(), time(hour), zone).astimezone(UTC)
