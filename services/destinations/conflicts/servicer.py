"""The rpcs of conflicts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from pmp.destinations.v1 import conflicts_pb2 as pb
from pmp.destinations.v1.conflicts_pb2_grpc import ConflictsServiceServicer
from typing_extensions import override

from kit.boundary.caller import Context, bind_log_fields
from kit.database.transactions import Sessions, transact
from kit.errors import InvalidRequest, Violation
from kit.people.identifiers import identifier_of
from kit.people.keys.seals import Decryptor
from kit.people.keys.store import Keys
from kit.people.persons import Persons
from kit.rules import ANY_AGE, Period, check, page_key, page_token, wrong_time
from kit.times import timestamp
from services.destinations.conflicts.models import ConflictRow
from services.destinations.conflicts.personal import VALUE_CONTEXT
from services.destinations.conflicts.store import Conflict, Conflicts, sealed

_PAGE: Final = 100


class ConflictsServicer(ConflictsServiceServicer):
    """Keeps conflicts, both values sealed under the key of their person."""

    def __init__(self, sessions: Sessions, keys: Keys) -> None:
        self._sessions = sessions
        self._keys = keys

    @override
    async def RecordConflict(self, request: pb.RecordConflictRequest, context: Context) -> pb.RecordConflictResponse:
        given, now = request.conflict, datetime.now(UTC)
        check(wrong_time("conflict.decided_at", given.decided_at, Period.of(ANY_AGE)))
        subject = identifier_of(user_id=request.user_id)
        if not subject:
            raise InvalidRequest([Violation("user_id", "user_id stands for nobody: it is what programs write where an id is missing")])
        at = given.decided_at.ToDatetime(UTC) if given.HasField("decided_at") else now
        stated = Conflict(given.id, subject, given.field, given.kept, at)
        conflict = await sealed(self._keys, stated, (given.site_value, given.mesh_value))
        is_new = await transact(self._sessions, lambda session: Conflicts(session).add(conflict, self._keys.hasher, now))
        bind_log_fields(field=given.field, kept=given.kept, new=is_new)
        return pb.RecordConflictResponse(success=True, duplicate=not is_new)

    @override
    async def ListConflicts(self, request: pb.ListConflictsRequest, context: Context) -> pb.ListConflictsResponse:
        after, limit = page_key(request.page_token, str), request.page_size or _PAGE
        identifier = identifier_of(user_id=request.user_id)
        async with self._sessions.reading() as session:
            person = await Persons(session).resolve(identifier) if request.user_id else None
            found = await Conflicts(session).page(person, after, limit + 1)
        page: Sequence[ConflictRow] = found[:limit]
        decryptor = await self._keys.decryptor(value for row in page for value in (row.site_value, row.mesh_value))
        return pb.ListConflictsResponse(
            conflicts=[_message(row, decryptor) for row in page],
            next_page_token=page_token(page[-1].decided_at, page[-1].id) if len(found) > limit else "",
        )


def _message(row: ConflictRow, decryptor: Decryptor) -> pb.RecordedConflict:
    return pb.RecordedConflict(
        subject=row.subject,
        conflict=pb.Conflict(
            id=row.id,
            field=row.field,
            kept=row.kept,
            site_value=decryptor.open(row.site_value, context=VALUE_CONTEXT),
            mesh_value=decryptor.open(row.mesh_value, context=VALUE_CONTEXT),
            decided_at=timestamp(row.decided_at),
        ),
    )
