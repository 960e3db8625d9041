"""All data of a person as one document, gathered from all holders while it is downloaded: no copy is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, transact
from kit.errors import Conflict, NotFound
from kit.people.keys.store import Keys
from kit.server import run_every
from services.gdpr.holders import Holders
from services.gdpr.messages import IDENTIFIERS_CONTEXT
from services.gdpr.repository import ArchiveLinks, Audit, Requests
from services.gdpr.rules import HOLD

SECTIONS: Final = {
    "wordpress_data": "The account: its profile, the identifiers of the person, merged accounts, and what the site had otherwise.",
    "analytics_data": "What was done on the site, session by session, and the campaign that led there first.",
    "purchase_history": "Orders with their lines, every payment and refund, and what was reported of them.",
    "email_data": "The mailing lists the person is on, or has left, and the addresses under which e-mail tools know the person.",
    "consents": "What the person allowed or refused, and when: every choice, none overwritten.",
    "journeys": "How the person came to buy: touchpoints, sessions, and the goals that were reached.",
    "deliveries": "Which other systems were sent what about the person, and when.",
}
"""The parts of an archive, in this order, and what they mean."""

_ABOUT: Final = {
    "about": "Everything that is held of one person, by the tables in which it is held. A part without tables: nothing of it is held.",
    "times": "UTC, as RFC 3339 has it.",
    "money": "Exact decimal amounts in the currency beside them; base_ amounts are in the shop's own currency.",
    "complete": "The last word of a whole archive: one that ends without it broke off, and can be fetched again.",
}
NO_LINK: Final = "token: this link leads to no archive: it was used, it has expired, or another caller requested it"
_LOST: Final = "id: this fetch took too long, and the archive is being fetched anew"
_PORTION_BYTES: Final = 65_536
_SWEEP_SECONDS: Final = 60.0


class _Fetch(NamedTuple):
    """An archive that is being fetched."""

    client: str
    identifiers: Sequence[str]
    held_until: datetime


class Archives:
    """Serves archives, each of them once.

    A fetch holds its link exclusively; the hold of one that dies expires after a minute. The link is deleted before the last part of
    the archive is sent, so only one fetch can ever be complete.
    """

    def __init__(self, sessions: Sessions, keys: Keys, holders: Holders, site: str) -> None:
        self._sessions = sessions
        self._keys = keys
        self._holders = holders
        self._site = site

    async def fetch(self, request_id: str) -> AsyncGenerator[bytes]:
        """Yields the archive of a request in portions.

        Raises:
            NotFound: its link does not exist any more.
            Conflict: another fetch holds it.
            Unavailable: a holder does not respond. The link stays.
        """
        client, identifiers, held = await transact(self._sessions, lambda session: self._begin(session, request_id))
        try:
            await self._holders.answer()
            archive = Archive(self._holders, identifiers, {"request": request_id, "site": self._site})
            async with aclosing(archive.portions()) as portions:
                async for portion in portions:
                    held = await self._hold_on(request_id, held)
                    yield portion
            await transact(self._sessions, lambda session: self._finish(session, request_id, client, held))
            yield archive.end()
        finally:
            # Does nothing once it is finished.
            await transact(self._sessions, lambda session: ArchiveLinks(session).hold(request_id, held, None))

    async def sweep(self) -> None:
        """Deletes expired links periodically, until cancelled."""

        async def expire(session: AsyncSession) -> int:
            return await ArchiveLinks(session).expire(datetime.now(UTC))

        await run_every(lambda: transact(self._sessions, expire), _SWEEP_SECONDS, "links not swept")

    async def _begin(self, session: AsyncSession, request_id: str) -> _Fetch:
        links, requests, now = ArchiveLinks(session), Requests(session, self._keys.hasher), datetime.now(UTC)
        link, request = await links.get(request_id), await requests.get(request_id)
        if link is None or request is None or link.expires_at <= now:
            raise NotFound(NO_LINK)
        if not await links.take(request_id, now, now + HOLD):
            message = "id: the archive is being fetched"
            raise Conflict(message)
        identifier = (await self._keys.decryptor([link.name])).open(link.name, context=IDENTIFIERS_CONTEXT)
        if not identifier:
            raise NotFound(NO_LINK)
        return _Fetch(request.client, await requests.identifiers(identifier), now + HOLD)

    async def _hold_on(self, request_id: str, held: datetime) -> datetime:
        until = datetime.now(UTC) + HOLD
        if until - held < HOLD / 2:
            return held
        if not await transact(self._sessions, lambda session: ArchiveLinks(session).hold(request_id, held, until)):
            raise Conflict(_LOST)
        return until

    async def _finish(self, session: AsyncSession, request_id: str, client: str, held: datetime) -> None:
        if not await ArchiveLinks(session).remove(request_id, held):
            raise Conflict(_LOST)
        done = {"action": "export done", "request": request_id, "client": client, "finished_at": datetime.now(UTC).isoformat()}
        await Audit(session).append(done)


class Archive:
    """The document, in portions."""

    def __init__(self, holders: Holders, identifiers: Sequence[str], facts: dict[str, Any]) -> None:
        self._holders = holders
        self._identifiers = identifiers
        self._facts = {**facts, "made_at": datetime.now(UTC).isoformat(timespec="seconds")}
        self._rows = Counter[str](dict.fromkeys(SECTIONS, 0))

    async def portions(self) -> AsyncGenerator[bytes]:
        """Yields all of it but its end."""
        portion = bytearray()
        async with aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                portion += piece
                if len(portion) >= _PORTION_BYTES:
                    yield bytes(portion)
                    portion.clear()
        yield bytes(portion)

    def end(self) -> bytes:
        """Returns its end, without which the document is invalid."""
        return b',\n"rows": %s,\n"complete": true\n}\n' % orjson.dumps(self._rows)

    async def _pieces(self) -> AsyncGenerator[bytes]:
        yield b'{\n"archive": ' + orjson.dumps({**_ABOUT, **self._facts})
        for section, about in SECTIONS.items():
            yield b',\n"%s": {\n"about": %s' % (section.encode(), orjson.dumps(about))
            table = ""
            for holder in self._holders.names:
                async with aclosing(self._holders.export(holder, self._identifiers, section)) as rows:
                    async for row in rows:
                        if row.table != table:
                            yield (b"\n]" if table else b"") + b',\n"%s": [\n' % row.table.encode()
                            table = row.table
                        else:
                            yield b",\n"
                        yield row.record.encode()
                        self._rows[section] += 1
            yield b"\n]\n}" if table else b"\n}"
