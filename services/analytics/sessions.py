"""Splits the events of a visitor into sessions, and decides what a session counts as: pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

import orjson

from kit.people.subjects.words import MEDIA, SOURCES, listed
from services.analytics.counts import (
    CAMPAIGN,
    COURSE,
    DEVICE,
    HOUR,
    LANDING,
    MEDIUM,
    PAGE,
    SITE,
    SOURCE,
    VIDEO,
    VISITORS,
    Counts,
    Traffic,
    audience,
)
from services.analytics.days import MICROSECONDS
from services.analytics.funnel import CHECKOUT, PRODUCT_VIEW, is_product_page, reached

IDLE: Final = 30 * 60 * MICROSECONDS
"""A session ends when nothing happens for this long."""
MOST_EVENTS: Final = 1000
"""A session ends after as many events: each further one writes all of them again."""
VIEW: Final = "view"
LEAD: Final = "lead"
ENROLMENT: Final = "enrolment"
COMPLETION: Final = "completion"
DIRECT: Final = "(direct)"
"""Source of a session that no page, campaign or partner led to."""
NO_MEDIUM: Final = "(none)"
OTHER: Final = "(other)"
"""Stands for what an erased person saw and came from, which may identify her."""


class Event(NamedTuple):
    """What analytics keeps of an event."""

    at: int
    """Microseconds since 1970."""
    key: str
    """Its idempotency key."""
    kind: str
    """view, lead, enrolment, completion, product or checkout; empty for any other."""
    subject: str
    """The identifier of its user or e-mail address; empty if only the carrier recognises the visitor."""
    page: str
    """Path of the page; empty for none."""
    course: str
    source: str
    """Where it came from; empty if it states nothing: a direct call, or a page of the shop itself."""
    medium: str
    campaign: str
    device: str
    video: str
    """The video that it is about, or that led to its page; empty for none."""


Session: TypeAlias = Sequence[Event]
"""The events of one session, in order."""


def split(events: Iterable[Event]) -> Iterator[Session]:
    """Splits events under one session id: 30 idle minutes, another campaign or 1000 events begin a session, midnight does not.

    The first page of a session states its source, also after events that state none. The result depends on the set of events
    alone, not on the order in which they arrive.
    """
    current: list[Event] = []
    source, has_view = ("", "", ""), False
    for event in sorted(events):
        stated = event[6:9]
        is_another = bool(event.source) and (stated != source if source[0] else has_view)
        if current and (event.at - current[-1].at > IDLE or is_another or len(current) == MOST_EVENTS):
            yield _of_one_visitor(current)
            current, source, has_view = [], ("", "", ""), False
        current.append(event)
        source = source if source[0] else stated
        has_view = has_view or event.kind == VIEW
    if current:
        yield _of_one_visitor(current)


def user_of(session: Session) -> str:
    """Returns the identifier of the first user of a session, for whom all of it counts; empty if there is none."""
    return next((event.subject for event in session if event.subject), "")


def _of_one_visitor(session: Session) -> Session:
    """Returns a session without the identifiers of others who continued it in the same browser."""
    user = user_of(session)
    return [event._replace(subject="") if event.subject not in ("", user) else event for event in session]


def dumps(session: Session) -> str:
    """Serialises a session."""
    return orjson.dumps([[*event] for event in session]).decode()


def loads(text: str) -> Session:
    """Parses what `dumps` returned."""
    return [Event(*each) for each in orjson.loads(text)]


def count_session(counts: Counts, carrier: str, session: Session, times: int = 1) -> None:
    """Adds a session to counts, or with -1 subtracts it. It counts on the day on which it began, its events on their own days.

    Args:
        counts: what is added to.
        carrier: the identifier under which the events came: the visitor, unless a user is known.
        session: the events.
        times: 1 or -1.
    """
    day_of = counts.calendar.day
    days = [day_of(event.at) for event in session]
    of_days: dict[int, Traffic] = {day: Traffic() for day in days}
    steps: dict[int, int] = {}
    for event, day in zip(session, days, strict=True):
        _count_event(of_days[day], event)
        _count_content(counts, event, day, times)
        steps[day] = max(steps.get(day, 0), _steps(event))
    views = sum(event.kind == VIEW for event in session)
    whole = Traffic(visits=1, bounces=int(views <= 1), seconds=(session[-1].at - session[0].at) // MICROSECONDS)
    if landing := landing_of(session):
        counts.add_traffic(LANDING, landing, days[0], whole, times)
    _count_hours(counts, session, whole, times)
    dimensions = _dimensions(session)
    for dimension, value in dimensions:
        counts.add_traffic(dimension, value, days[0], whole, times)
        for day, figures in of_days.items():
            counts.add_traffic(dimension, value, day, figures, times)
    joined = [VISITORS, *(audience(*each) for each in dimensions if each[0] in _AUDIENCES)]
    visitor = user_of(session) or carrier
    for day, course in {(day, event.course if event.kind else "") for event, day in zip(session, days, strict=True)}:
        for name in (*joined, audience(COURSE, course)) if course else joined:
            counts.add_presence((name, visitor, day), times)
    for day, count in steps.items():
        for name in reached(count):
            counts.add_presence((name, visitor, day), times)
    _count_led_by(counts, session, days[0], times)


def video_of(session: Session) -> str:
    """Returns the first video that a session states; empty for none."""
    return next((event.video for event in session if event.video), "")


def landing_of(session: Session) -> str:
    """Returns the first page of a session; empty for none."""
    return next((event.page for event in session if event.kind == VIEW and event.page), "")


def device_of(session: Session) -> str:
    """Returns the device of a session; empty when unknown."""
    return next((event.device for event in session if event.device), "")


def origin_of(session: Session) -> tuple[str, str, str]:
    """Returns source, medium and campaign of a session."""
    for event in session:
        if event.source:
            return event.source, event.medium or NO_MEDIUM, event.campaign
    return DIRECT, NO_MEDIUM, ""


def _dimensions(session: Session) -> list[tuple[str, str]]:
    """Returns the values of the dimensions of a whole session."""
    source, medium, campaign = origin_of(session)
    found = [(SITE, ""), (SOURCE, source), (MEDIUM, medium), (DEVICE, device_of(session))]
    return [*found, (CAMPAIGN, campaign)] if campaign else found


def anonymous(event: Event) -> Event:
    """Returns an event as it counts after the erasure of its person: of its texts, only common words are left."""
    return event._replace(
        page=other_page(event.page),
        course=event.course and OTHER,
        source=event.source and (listed(event.source, SOURCES) or OTHER),
        medium=event.medium and (listed(event.medium, MEDIA) or OTHER),
        campaign=event.campaign and OTHER,
        video=event.video and OTHER,
    )


def other_page(page: str) -> str:
    """Returns the path of a page as it counts after the erasure of its person; that of a product stays one, as a step of the funnel."""
    return page and (_OTHER_PRODUCT if is_product_page(page) else OTHER)


def count_single(counts: Counts, event: Event, times: int = 1) -> None:
    """Adds an event without a session: one of the shop's server, or of a person who is not to be recognised."""
    day = counts.calendar.day(event.at)
    figures = Traffic()
    _count_event(figures, event)
    counts.add_traffic(SITE, "", day, figures, times)
    counts.add_traffic(HOUR, "", counts.calendar.hour(event.at), figures, times)
    _count_content(counts, event, day, times)


def _count_led_by(counts: Counts, session: Session, day: int, times: int) -> None:
    """Adds a session to what led to it, for each course that was seen in it."""
    courses = {event.course for event in session if event.course and event.kind}
    if not courses:
        return
    source, _, campaign = origin_of(session)
    for dimension, value in ((SOURCE, source), (CAMPAIGN, campaign), (LANDING, landing_of(session)), (VIDEO, video_of(session))):
        for course in courses if value else ():
            counts.content_of(dimension, value, day, course).visits += times


def _count_hours(counts: Counts, session: Session, whole: Traffic, times: int) -> None:
    """Adds a session to the hour in which it began, and its events to their own hours."""
    hour_of = counts.calendar.hour
    hours = [hour_of(event.at) for event in session]
    of_hours: dict[int, Traffic] = {hour: Traffic() for hour in hours}
    for event, hour in zip(session, hours, strict=True):
        _count_event(of_hours[hour], event)
    counts.add_traffic(HOUR, "", hours[0], whole, times)
    for hour, figures in of_hours.items():
        counts.add_traffic(HOUR, "", hour, figures, times)


def _steps(event: Event) -> int:
    """Returns how many steps of the funnel an event shows, the visit itself aside."""
    if event.kind == CHECKOUT:
        return 2
    is_view = event.kind == VIEW and (event.course != "" or is_product_page(event.page))
    return int(is_view or event.kind == PRODUCT_VIEW)


def _count_content(counts: Counts, event: Event, day: int, times: int) -> None:
    """Adds an event to the figures of its page and its course."""
    if event.kind == VIEW and event.page:
        counts.add_traffic(PAGE, event.page, day, _ONE_VIEW, times)
    if event.course and event.kind:
        figures = Traffic()
        _count_event(figures, event)
        counts.add_traffic(COURSE, event.course, day, figures, times)


def _count_event(figures: Traffic, event: Event) -> None:
    figures.events += 1
    if event.kind == VIEW:
        figures.page_views += 1
    elif event.kind == LEAD:
        figures.leads += 1
    elif event.kind == ENROLMENT:
        figures.enrolments += 1
    elif event.kind == COMPLETION:
        figures.completions += 1


_AUDIENCES: Final = frozenset({SOURCE, CAMPAIGN})
_OTHER_PRODUCT: Final = f"/product/{OTHER}"
_ONE_VIEW: Final = Traffic(page_views=1, events=1)
