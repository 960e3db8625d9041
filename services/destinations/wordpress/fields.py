"""The fields that the mesh and WordPress both have, who owns each, and where the mesh reads it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

from pmp.identity.v1.identity_pb2 import User

from kit.people.privacy import PURPOSES


class Owner(StrEnum):
    """Whose value counts where the two differ."""

    WORDPRESS = "wordpress"
    """The value of the account. The site reports changes to the mesh, which never changes it."""
    MESH = "mesh"
    """The value that the mesh derives. WordPress keeps it, and refuses changes of others."""
    NEWEST = "newest"
    """Neither: a person's newest choice counts, and of two at one instant the denial."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field that both sides have."""

    name: str
    owner: Owner
    meaning: str
    read: Callable[[User], str] = lambda _: ""
    """Returns the mesh's value; that of a choice is in the person's consent instead."""
    first: str = ""
    """The field of `GetFirstSourceResponse` that has the mesh's value instead; empty for none."""
    written: str = ""
    """Where `User.written_at` has the time of a field that WordPress owns."""


def segment(user: User) -> str:
    """Returns the segment of a person: the first that applies of inactive, member, repeat_customer, customer, lead and prospect."""
    if user.inactive:
        return "inactive"
    if user.user_type == "subscriber":
        return "member"
    if user.paid_orders > 1:
        return "repeat_customer"
    return user.user_type


def amount(value: float) -> str:
    """Returns an amount as text, such as `80.5`."""
    return f"{Decimal(str(value)).normalize():f}"


def lifetime_values(user: User) -> str:
    """Returns what a person paid less refunds in each currency; empty for nothing."""
    return ", ".join(f"{each.currency} {amount(each.amount)}" for each in user.lifetime_values)


def language(user: User) -> str:
    """Returns the locale that a person prefers, as WordPress names it; empty if none is known."""
    value = dict(user.preferences).get("language")
    return value if isinstance(value, str) else ""


FIELDS: Final = (
    Field("email", Owner.WORDPRESS, "e-mail address of the account", lambda user: user.email, written="email"),
    Field("first_name", Owner.WORDPRESS, "given name", lambda user: user.first_name, written="first_name"),
    Field("last_name", Owner.WORDPRESS, "family name", lambda user: user.last_name, written="last_name"),
    Field("language", Owner.WORDPRESS, "locale of the account", language, written="preferences.language"),
    Field("user_type", Owner.MESH, "prospect, lead, customer or subscriber", lambda user: user.user_type),
    Field(
        "segment",
        Owner.MESH,
        "prospect, lead, customer, repeat_customer (two paid orders), member (a membership), or inactive whatever it was before",
        segment,
    ),
    Field("paid_orders", Owner.MESH, "number of paid orders, refunded ones included", lambda user: str(user.paid_orders)),
    Field("lifetime_value", Owner.MESH, "paid less refunded, at the rates of the orders' days", lambda user: amount(user.lifetime_value)),
    Field("currency", Owner.MESH, "the currency of that value: the shop's base currency", lambda user: user.currency),
    Field("lifetime_values", Owner.MESH, "paid less refunded in each currency, such as `EUR 120, USD 80.5`", lifetime_values),
    Field("first_source", Owner.MESH, "where the person first came from, such as google, `(direct)` or `(unknown)`", first="source"),
    Field("first_medium", Owner.MESH, "its medium, such as cpc, organic or `(none)`", first="medium"),
    Field("first_campaign", Owner.MESH, "its campaign; empty for none", first="campaign"),
    Field(PURPOSES[0], Owner.NEWEST, "whether visits may be recorded"),
    Field(PURPOSES[1], Owner.NEWEST, "whether the person wants marketing by e-mail"),
    Field(PURPOSES[2], Owner.NEWEST, "whether data may be shared with third parties"),
)
"""All of them."""

NAMES: Final[Mapping[Owner, frozenset[str]]] = {owner: frozenset(field.name for field in FIELDS if field.owner is owner) for owner in Owner}
"""Names by owner."""
