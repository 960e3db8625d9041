"""Clients of the services that hold personal data."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

import grpc.aio
import orjson
from pmp.destinations.v1 import destinations_pb2
from pmp.destinations.v1.destinations_pb2_grpc import DestinationsServiceStub
from pmp.privacy.v1 import privacy_pb2 as pb
from pmp.privacy.v1.privacy_pb2_grpc import SubjectDataServiceStub

from kit.boundary.caller import ROLE_HEADER
from kit.credentials.channels import open_channel
from kit.errors import Unavailable
from kit.log.streams import START, Offset, TopicPartition
from kit.settings import Settings
from services.gdpr.rules import DESTINATIONS

_IDENTIFIERS_AT_ONCE: Final = 1000
_WITH_ADDRESSES: Final = ("wordpress_data", "purchase_history", "email_data")
"""Sections of an export with e-mail addresses in plain text."""
_CALL_SECONDS: Final = 120.0
_EXPORT_SECONDS: Final = 900.0


@dataclass(slots=True)
class Answer:
    """The response of a holder."""

    tables: Counter[str] = field(default_factory=Counter[str])
    """Rows erased by this call, or that would be, by table."""
    total: Mapping[str, int] = field(default_factory=dict[str, int])
    """Rows erased under the task so far, by table."""
    read: dict[TopicPartition, Offset] = field(default_factory=dict[TopicPartition, Offset])
    written: dict[TopicPartition, Offset] = field(default_factory=dict[TopicPartition, Offset])
    entries_left: int = 0


class Holders:
    """The services that hold personal data.

    Args:
        names: the services.
    """

    def __init__(self, settings: Settings, names: Collection[str]) -> None:
        self.names = sorted(names)
        self._settings = settings

    async def erase(
        self,
        holder: str,
        identifiers: Sequence[str] = (),
        pseudonym: str = "",
        *,
        task: str = "",
        dry_run: bool = False,
        through: Mapping[TopicPartition, Offset] | None = None,
    ) -> Answer:
        """Erases identifiers at a holder, which counts the rows under the task; without identifiers returns its progress.

        Raises:
            Unavailable: it does not respond.
        """
        purge = [pb.Place(topic=topic, partition=partition, position=str(offset)) for (topic, partition), offset in (through or {}).items()]
        whole = Answer()
        async with self._called(holder) as stub:
            for some in _batches(identifiers) or [()]:
                request = pb.EraseRequest(
                    names=some, pseudonym=pseudonym, task=task, dry_run=dry_run, purge_through=purge, purge=through is not None
                )
                answer: pb.EraseResponse = await stub.Erase(request, metadata=self._metadata(holder), timeout=_CALL_SECONDS)
                whole.tables.update({each.table: each.rows for each in answer.tables})
                # Only what was read before the first batch was erased counts.
                whole.read = whole.read or _offsets(answer.read)
                whole.total = {each.table: each.rows for each in answer.total}
                whole.written, whole.entries_left = _offsets(answer.written), answer.entries_left
        return whole

    async def answer(self) -> None:
        """Returns once all of them respond.

        Raises:
            Unavailable: one does not.
        """
        await asyncio.gather(*(self.erase(holder, dry_run=True) for holder in self.names))

    async def export(self, holder: str, identifiers: Sequence[str], section: str) -> AsyncGenerator[pb.ExportResponse]:
        """Yields a holder's rows for a section of an archive: table by table, each row once.

        Raises:
            Unavailable: it does not respond.
        """
        batches = _batches(identifiers)
        if len(batches) == 1:
            async with aclosing(self._exported(holder, identifiers, section)) as rows:
                async for row in rows:
                    yield row
            return
        # More identifiers than one call takes: the batches are exported again for each table.
        tables = dict.fromkeys([row.table for some in batches async for row in self._exported(holder, some, section)])
        for table in tables:
            seen = set[bytes]()
            for some in batches:
                async with aclosing(self._exported(holder, some, section)) as rows:
                    async for row in rows:
                        digest = blake2b(row.record.encode(), digest_size=16).digest()
                        if row.table == table and digest not in seen:
                            seen.add(digest)
                            yield row

    async def addresses(self, identifiers: Sequence[str]) -> set[str]:
        """Returns the e-mail addresses of a person that the holders have.

        Raises:
            Unavailable: a holder does not respond.
        """
        found: set[str] = set()
        for holder in self.names:
            for some in _batches(identifiers):
                async with aclosing(self._exported(holder, some, *_WITH_ADDRESSES)) as rows:
                    async for row in rows:
                        found.add(orjson.loads(row.record).get("email") or "")
        return found - {""}

    async def erase_at_destinations(self, request_id: str, identifiers: Sequence[str], emails: Sequence[str]) -> Mapping[str, str]:
        """Deletes a person at all destinations; returns what each answered.

        Raises:
            Unavailable: the service does not respond, or a destination has not given a final answer yet.
        """
        request = destinations_pb2.ErasePersonRequest(request=request_id, names=identifiers, emails=emails)
        try:
            async with open_channel(self._settings, DESTINATIONS) as channel:
                stub: Any = DestinationsServiceStub(channel)
                answer: destinations_pb2.ErasePersonResponse = await stub.ErasePerson(
                    request, metadata=self._metadata(DESTINATIONS), timeout=_CALL_SECONDS
                )
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"{DESTINATIONS} answers {error.code().name}") from None
        if not answer.is_done:
            waiting = next(each for each in answer.answers if not each.is_final)
            raise Unavailable(f"{waiting.destination}: {waiting.answer}")
        return {each.destination: each.answer for each in answer.answers}

    async def _exported(self, holder: str, identifiers: Sequence[str], *sections: str) -> AsyncGenerator[pb.ExportResponse]:
        async with self._called(holder) as stub:
            request = pb.ExportRequest(names=identifiers, sections=sections)
            async for row in stub.Export(request, metadata=self._metadata(holder), timeout=_EXPORT_SECONDS):
                yield row

    def _metadata(self, holder: str) -> tuple[tuple[str, str], ...]:
        return (*self._settings.mesh_metadata, (ROLE_HEADER, holder))

    @asynccontextmanager
    async def _called(self, holder: str) -> AsyncGenerator[Any]:
        """Returns the stub of a holder.

        Raises:
            Unavailable: it does not respond.
        """
        try:
            async with open_channel(self._settings, holder) as channel:
                yield SubjectDataServiceStub(channel)
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"{holder} answers {error.code().name}") from None


def _batches(identifiers: Sequence[str]) -> list[Sequence[str]]:
    """Splits identifiers into batches that a holder takes in one call; none of none."""
    return [identifiers[start : start + _IDENTIFIERS_AT_ONCE] for start in range(0, len(identifiers), _IDENTIFIERS_AT_ONCE)]


def _offsets(places: Sequence[pb.Place]) -> dict[TopicPartition, Offset]:
    return {TopicPartition(place.topic, place.partition): Offset.parse(place.position) for place in places}


def reached(read: Mapping[TopicPartition, Offset], offsets: Mapping[TopicPartition, Offset]) -> bool:
    """True if a consumer has read up to these offsets, in those of the topics that it consumes."""
    topics = {partition.topic for partition in read}
    return all(read.get(partition, START) >= offset for partition, offset in offsets.items() if partition.topic in topics)
