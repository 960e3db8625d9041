"""Fields of a profile: of two writers, the later wins, whichever arrives first. Decisions without a database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_PREFERENCE: Final = "preferences."
_Value = TypeVar("_Value")


def microseconds(at: datetime) -> int:
    """Returns a time in microseconds since 1970, the unit in which the times of fields are stored."""
    return (at - _EPOCH) // _MICROSECOND


def moment(microseconds_: int) -> datetime:
    """Returns the time that is so many microseconds after the start of 1970."""
    return _EPOCH + microseconds_ * _MICROSECOND


def wins(times: Mapping[str, int], field: str, at: datetime) -> bool:
    """Returns True when a value written at a time replaces the one a field has."""
    return microseconds(at) >= times.get(field, microseconds(at))


def apply_preferences(
    values: Mapping[str, _Value], times: Mapping[str, int], changes: Mapping[str, _Value | None], at: datetime
) -> tuple[dict[str, _Value], dict[str, int]]:
    """Returns the preferences and the times of all fields, after some preferences were written.

    Args:
        values: the preferences before.
        times: the times of all fields before.
        changes: what is written; None removes a preference.
        at: when it was written.
    """
    after, after_times = dict(values), dict(times)
    for name, value in changes.items():
        field = f"{_PREFERENCE}{name}"
        if not wins(times, field, at):
            continue
        after_times[field] = microseconds(at)
        if value is None:
            after.pop(name, None)
        else:
            after[name] = value
    return after, after_times


def combine_preferences(users: Sequence[tuple[Mapping[str, _Value], Mapping[str, int]]]) -> dict[str, _Value]:
    """Returns the preferences of a person: each as last written with any of its users. At equal times, the first user wins."""
    last: dict[str, tuple[int, Mapping[str, _Value]]] = {}
    for values, times in users:
        for field, time in times.items():
            name = field.removeprefix(_PREFERENCE)
            if name != field and (name not in last or time > last[name][0]):
                last[name] = (time, values)
    return {name: values[name] for name, (_, values) in sorted(last.items()) if name in values}
