"""Users within one transaction: those loaded and created, and what is to be published of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from decimal import Decimal

from pmp.identity.v1.change_pb2 import IdentityChanged
from uuid6 import uuid7

from services.identity.links import wordpress_id_of
from services.identity.messages import user_changed
from services.identity.models import UserRow
from services.identity.repository import Identities


class Users:
    """Users loaded or created so far."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities
        self._rows: dict[str, UserRow] = {}
        self._before: dict[str, IdentityChanged | None] = {}

    async def load(self, user_ids: Collection[str]) -> Sequence[UserRow]:
        """Returns users by their ids, without those that do not exist."""
        for user_id, row in (await self._identities.users(set(user_ids) - self._rows.keys())).items():
            self._rows[user_id] = row
            self._before[user_id] = user_changed(row)
        return [self._rows[user_id] for user_id in user_ids if user_id in self._rows]

    async def get(self, user_id: str) -> UserRow:
        """Returns a user that exists."""
        [row] = await self.load([user_id])
        return row

    def create(self, identifier: str, now: datetime, *, historical: bool) -> UserRow:
        """Creates a user, which is a WordPress user if its identifier is one."""
        row = UserRow(
            id=str(uuid7()),
            wordpress_id=wordpress_id_of(identifier),
            user_type="prospect",
            lifetime_value=Decimal(0),
            paid_orders=0,
            inactive=False,
            preferences={},
            field_times={},
            created_at=now,
            updated_at=now,
            historical=historical,
        )
        self._rows[row.id] = row
        self._before[row.id] = None
        self._identities.add(row)
        return row

    def changes(self) -> list[IdentityChanged]:
        """Returns the messages of users that are new, or differ from when they were loaded."""
        changed = [(user_id, user_changed(row)) for user_id, row in sorted(self._rows.items())]
        return [message for user_id, message in changed if message != self._before[user_id]]
