"""Which persons may be merged. Decisions without a database."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, TypeAlias

LARGEST_PERSON: Final = 20
"""The largest number of users that a person may consist of."""

WordPressIds: TypeAlias = Mapping[str, int | None]
"""The users of a person, each with its WordPress id."""


class MergeRefusal(Enum):
    """Why two persons may not be merged; the value is the text of the response."""

    TOO_MANY_USERS = f"a person may not be more than {LARGEST_PERSON} users"
    DIFFERENT_WORDPRESS_USERS = "the users have different WordPress ids"


def merge_refusal(one: WordPressIds, other: WordPressIds) -> MergeRefusal | None:
    """Returns why two persons may not be merged; None when they may."""
    if len(one) + len(other) > LARGEST_PERSON:
        return MergeRefusal.TOO_MANY_USERS
    if len({number for number in (*one.values(), *other.values()) if number is not None}) > 1:
        return MergeRefusal.DIFFERENT_WORDPRESS_USERS
    return None


def registration_may_merge(account: WordPressIds, lead: WordPressIds) -> bool:
    """Returns True when a registration is evidence enough to merge the person of its e-mail address into that of its WordPress user."""
    return not any(lead.values()) and merge_refusal(account, lead) is None


def may_become(person: WordPressIds, wordpress_id: int) -> bool:
    """Returns True when none of a person's users is another WordPress user."""
    return all(number in (None, wordpress_id) for number in person.values())
