"""Handler of the topic `gdpr`: records the conflicts that a choice made, which the shop's site may never see."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

import orjson
from pmp.gdpr.v1.change_pb2 import Choice, ConsentConflict, GdprChanged
from sqlalchemy.ext.asyncio import AsyncSession

from kit.log.consume.handler import Handler
from kit.log.streams import Delivery
from kit.people.keys.store import Keys
from services.destinations.conflicts.store import Conflict, Conflicts, sealed

_ACCOUNT: Final = "wordpress:"


class FollowConflicts:
    """Handler of `gdpr`.

    Args:
        keys: seal both values.
        then: handles the messages first.
    """

    def __init__(self, keys: Keys, then: Handler) -> None:
        self._keys = keys
        self._then = then

    async def __call__(self, session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
        """Records the conflicts of accounts. One that the site has reported as well is recorded once."""
        await self._then(session, deliveries)
        now = datetime.now(UTC)
        for change in (GdprChanged.FromString(delivery.record.payload) for delivery in deliveries):
            for found in change.consent.conflicts:
                if found.subject.startswith(_ACCOUNT):
                    conflict = await sealed(self._keys, conflict_of(found), (_word(found.site), _word(found.mesh)))
                    await Conflicts(session).add(conflict, self._keys.hasher, now)


def conflict_of(found: ConsentConflict) -> Conflict:
    """Returns a conflict as the site would report it, without the values: `SyncedUsers.php` makes the same id of the same choices."""
    site, mesh = found.site, found.mesh
    newer = max(site, mesh, key=lambda choice: (choice.decided_at.ToMicroseconds(), not choice.granted))
    kept = "wordpress" if newer.granted == site.granted else "mesh"
    stated = {
        "field": found.purpose,
        "site_value": _word(site),
        "mesh_value": _word(mesh),
        "kept": kept,
        "at": mesh.decided_at.ToMicroseconds(),
    }
    digest = sha256(f"{found.subject.removeprefix(_ACCOUNT)} ".encode() + orjson.dumps(stated)).hexdigest()
    return Conflict(f"wp-conflict-{digest}", found.subject, found.purpose, kept, newer.decided_at.ToDatetime(UTC))


def _word(choice: Choice) -> str:
    return "granted" if choice.granted else "denied"
