"""The services that hold something of persons, as gdpr asks them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

import grpc
import grpc.aio
import orjson
from pmp.privacy.v1 import privacy_pb2 as pb
from pmp.privacy.v1.privacy_pb2_grpc import SubjectDataServiceStub

from kit.errors import Unavailable
from kit.settings import Settings, mesh_tokens
from services.gdpr.rules import Place

_NAMES_AT_ONCE: Final = 1000
_WITH_ADDRESSES: Final = ("wordpress_data", "purchase_history")
"""Sections of an export in which somebody's e-mail addresses stand in clear."""
_CALL_SECONDS: Final = 120.0
_EXPORT_SECONDS: Final = 900.0


@dataclass(slots=True)
class Answer:
    """What a holder answered."""

    tables: Counter[str] = field(default_factory=Counter[str])
    """What went now, or would go."""
    total: Mapping[str, int] = field(default_factory=dict[str, int])
    """What went under the task so far."""
    read: dict[Place, str] = field(default_factory=dict[Place, str])
    written: dict[Place, str] = field(default_factory=dict[Place, str])
    entries_left: int = 0


class Holders:
    """The services that hold something of persons.

    Args:
        names: the services.
    """

    def __init__(self, settings: Settings, names: Collection[str]) -> None:
        self.names = sorted(names)
        self._addresses = {name: settings.address(name) for name in names}
        self._metadata = (("x-pmp-mesh-token", mesh_tokens(settings.mesh_token)[0]),)

    async def erase(
        self,
        holder: str,
        names: Sequence[str] = (),
        pseudonym: str = "",
        *,
        task: str = "",
        dry_run: bool = False,
        through: Mapping[Place, str] | None = None,
    ) -> Answer:
        """Erases names at a holder, which counts what goes under the task, or asks how far it is.

        Raises:
            Unavailable: it does not answer.
        """
        purge = [pb.Place(topic=topic, partition=partition, position=at) for (topic, partition), at in (through or {}).items()]
        whole = Answer()
        async with self._asked(holder) as stub:
            for some in _portions(names) or [()]:
                request = pb.EraseRequest(names=some, pseudonym=pseudonym, task=task, dry_run=dry_run, purge_through=purge)
                answer: pb.EraseResponse = await stub.Erase(request, metadata=self._metadata, timeout=_CALL_SECONDS)
                whole.tables.update({each.table: each.rows for each in answer.tables})
                # What was read before the first portion was erased is what counts.
                whole.read = whole.read or _places(answer.read)
                whole.total = {each.table: each.rows for each in answer.total}
                whole.written, whole.entries_left = _places(answer.written), answer.entries_left
        return whole

    async def answer(self) -> None:
        """Returns when all of them answer.

        Raises:
            Unavailable: one does not.
        """
        await asyncio.gather(*(self.erase(holder, dry_run=True) for holder in self.names))

    async def export(self, holder: str, names: Sequence[str], section: str) -> AsyncGenerator[pb.ExportResponse]:
        """What a holder has for a section of somebody's archive: table by table, each row once.

        Raises:
            Unavailable: it does not answer.
        """
        portions = _portions(names)
        if len(portions) == 1:
            async with aclosing(self._exported(holder, names, section)) as rows:
                async for row in rows:
                    yield row
            return
        # More names than it takes at once: each portion of them is asked for anew, table by table.
        tables = dict.fromkeys([row.table for some in portions async for row in self._exported(holder, some, section)])
        for table in tables:
            shown = set[bytes]()
            for some in portions:
                async with aclosing(self._exported(holder, some, section)) as rows:
                    async for row in rows:
                        digest = blake2b(row.record.encode(), digest_size=16).digest()
                        if row.table == table and digest not in shown:
                            shown.add(digest)
                            yield row

    async def addresses(self, names: Sequence[str]) -> set[str]:
        """E-mail addresses of somebody, as the holders know them.

        Raises:
            Unavailable: a holder does not answer.
        """
        found: set[str] = set()
        for holder in self.names:
            for some in _portions(names):
                async with aclosing(self._exported(holder, some, *_WITH_ADDRESSES)) as rows:
                    async for row in rows:
                        found.add(orjson.loads(row.record).get("email") or "")
        return found - {""}

    async def _exported(self, holder: str, names: Sequence[str], *sections: str) -> AsyncGenerator[pb.ExportResponse]:
        async with self._asked(holder) as stub:
            request = pb.ExportRequest(names=names, sections=sections)
            async for row in stub.Export(request, metadata=self._metadata, timeout=_EXPORT_SECONDS):
                yield row

    @asynccontextmanager
    async def _asked(self, holder: str) -> AsyncGenerator[Any]:
        """The rpcs of a holder.

        Raises:
            Unavailable: it does not answer.
        """
        try:
            async with grpc.aio.insecure_channel(self._addresses[holder]) as channel:
                yield SubjectDataServiceStub(channel)
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"{holder} answers {error.code().name}") from None


def _portions(names: Sequence[str]) -> list[Sequence[str]]:
    """As many names as a holder takes at once, and so on; nothing of none."""
    return [names[start : start + _NAMES_AT_ONCE] for start in range(0, len(names), _NAMES_AT_ONCE)]


def _places(places: Sequence[pb.Place]) -> dict[Place, str]:
    return {(place.topic, place.partition): place.position for place in places}
