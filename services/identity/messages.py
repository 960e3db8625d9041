"""The messages of identity: changes on its topic, and a person as `GetUser` returns it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from pmp.identity.v1 import change_pb2, identity_pb2
from pmp.ingestion.v1.event_pb2 import UtmParameters

from kit.people.keys.seals import EMAIL_CONTEXT, Decryptor
from kit.times import timestamp
from services.identity.fields import combine_preferences, moment
from services.identity.links import Link
from services.identity.models import LinkRow, UserRow
from services.identity.profiles import Subscription

NAME_CONTEXT: Final = "name"
"""Context under which given and family names are sealed."""


def change_key(change: change_pb2.IdentityChanged) -> str:
    """Returns the key under which a change is published; the newest message of a key is its whole state."""
    link, merge, user = change.alias, change.merge, change.user
    if change.HasField("alias"):
        return f"alias {link.subject} {link.user_id}"
    return f"merge {merge.merged_user_id}" if change.HasField("merge") else f"user {user.user_id}"


def link_changed(link: Link) -> change_pb2.IdentityChanged:
    """Returns the message of a link, withdrawn or not."""
    linked_at = timestamp(link.linked_at)
    changed = change_pb2.AliasChanged(subject=link.identifier, user_id=link.user_id, linked_at=linked_at, withdrawn=link.withdrawn)
    return change_pb2.IdentityChanged(alias=changed)


def merge_changed(merged_user_id: str, user_id: str, merged_at: datetime, *, undone: bool) -> change_pb2.IdentityChanged:
    """Returns the message of a merge, undone or not."""
    merge = change_pb2.MergeChanged(user_id=user_id, merged_user_id=merged_user_id, merged_at=timestamp(merged_at), undone=undone)
    return change_pb2.IdentityChanged(merge=merge)


def user_changed(row: UserRow) -> change_pb2.IdentityChanged:
    """Returns the message of a user, without personal values."""
    user = change_pb2.UserChanged(
        user_id=row.id,
        wordpress_id=row.wordpress_id or 0,
        user_type=change_pb2.UserType.Value(f"USER_TYPE_{row.user_type.upper()}"),
        lifetime_value=f"{row.lifetime_value.normalize():f}",
        email_hash=row.email_hash or b"",
        registration_date=timestamp(row.registration_date),
        created_at=timestamp(row.created_at),
        historical=row.historical,
        updated_at=timestamp(row.updated_at),
        paid_orders=row.paid_orders,
        inactive=row.inactive,
    )
    return change_pb2.IdentityChanged(user=user)


def person(
    rows: Sequence[UserRow],
    links: Sequence[LinkRow],
    person_ids: Mapping[str, str],
    subscriptions: Iterable[Subscription],
    *,
    decryptor: Decryptor,
    currency: str,
) -> identity_pb2.User:
    """Returns a person, combined from all its users: each field as it was last written with any of them.

    Args:
        rows: its users; the one that stands for the person first.
        links: their links.
        person_ids: the persons that the identifiers of these links lead to.
        subscriptions: their mailing lists.
        decryptor: has the keys of sealed fields.
        currency: the base currency of the lifetime value.
    """
    root = rows[0]
    user = identity_pb2.User(
        user_id=root.id,
        wordpress_id=next((row.wordpress_id for row in rows if row.wordpress_id), 0),
        email=decryptor.open(_newest(rows, "email"), context=EMAIL_CONTEXT),
        first_name=decryptor.open(_newest(rows, "first_name"), context=NAME_CONTEXT),
        last_name=decryptor.open(_newest(rows, "last_name"), context=NAME_CONTEXT),
        registration_date=timestamp(min((row.registration_date for row in rows if row.registration_date), default=None)),
        last_login=timestamp(max((row.last_login for row in rows if row.last_login), default=None)),
        user_type=root.user_type,
        lifetime_value=float(root.lifetime_value),
        currency=currency,
        lifetime_values=[
            identity_pb2.LifetimeValue(currency=code, amount=float(amount)) for code, amount in (root.lifetime_values or {}).items()
        ],
        utm_attribution=UtmParameters(**root.utm_attribution) if root.utm_attribution else None,
        email_subscriptions=_subscriptions(subscriptions),
        links=[_link(link, leads_here=person_ids.get(link.subject) == root.id) for link in links],
        merged_user_ids=[row.id for row in rows[1:]],
        created_at=timestamp(min(row.created_at for row in rows)),
        updated_at=timestamp(max(row.updated_at for row in rows)),
        paid_orders=root.paid_orders,
        last_active_at=timestamp(root.last_active_at),
        inactive=root.inactive,
        written_at={name: timestamp(moment(time)) for name, time in _newest_times(rows).items()},
    )
    user.preferences.update(combine_preferences([(row.preferences, row.field_times) for row in rows]))
    return user


def _newest_times(rows: Sequence[UserRow]) -> Mapping[str, int]:
    """Returns when each field was last written with any of the users, in microseconds since 1970."""
    names = {name for row in rows for name in row.field_times}
    return {name: max(row.field_times[name] for row in rows if name in row.field_times) for name in sorted(names)}


def _newest(rows: Sequence[UserRow], field: str) -> bytes | None:
    writers = [row for row in rows if field in row.field_times]
    return getattr(max(writers, key=lambda row: row.field_times[field]), field) if writers else None


def _subscriptions(subscriptions: Iterable[Subscription]) -> list[identity_pb2.EmailSubscription]:
    newest: dict[str, Subscription] = {}
    for each in subscriptions:
        if each.list not in newest or each.changed_at > newest[each.list].changed_at:
            newest[each.list] = each
    return [
        identity_pb2.EmailSubscription(list=name, subscribed=each.subscribed, changed_at=timestamp(each.changed_at))
        for name, each in sorted(newest.items())
    ]


def _link(row: LinkRow, *, leads_here: bool) -> identity_pb2.IdentityLink:
    value: Any = row.subject.partition(":")[2]
    linked_at = timestamp(row.linked_at)
    return identity_pb2.IdentityLink(kind=row.kind, value=value, evidence=row.evidence, linked_at=linked_at, leads_here=leads_here)
