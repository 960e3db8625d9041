"""The rpcs of identity."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, TypeAlias

from pmp.identity.v1 import identity_pb2 as pb
from pmp.identity.v1.change_pb2 import IdentityChanged
from pmp.identity.v1.identity_pb2_grpc import IdentityServiceServicer
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import override

from kit.boundary.batch import BatchReader
from kit.boundary.caller import Context, bind_log_fields
from kit.database.group_commit import GroupCommit
from kit.database.transactions import Sessions
from kit.log.publish.state_topic import StateTopic
from kit.people.identifiers import identifier_of
from kit.people.keys.store import Keys
from kit.people.persons import Persons
from kit.settings import Settings
from services.identity.commands import Command, Effect, MergeUsers, UnmergeUsers, unknown_user
from services.identity.links import user_identifier
from services.identity.messages import person
from services.identity.repository import Identities
from services.identity.requests import RequestReader, check_registration, identify_user
from services.identity.unit_of_work import change_graph

_Work: TypeAlias = Command | pb.Registration
"""A command, or a registration whose personal values have yet to be sealed."""


class _Committed(NamedTuple):
    """The result of a command, once its transaction is committed."""

    user_id: str
    person_id: str
    effect: Effect


class IdentityServicer(IdentityServiceServicer):
    """Registers, finds, merges and unmerges users."""

    def __init__(self, settings: Settings, sessions: Sessions, topic: StateTopic, keys: Keys) -> None:
        self._currency = settings.site_currency
        self._sessions = sessions
        self._topic = topic
        self._hasher = keys.hasher
        self._keys = keys
        self._requests = RequestReader(keys)
        self._batches = BatchReader(settings, pb.RegisterUsersRequest.DESCRIPTOR, "users", "user")
        # The graph has one writer at a time anyway.
        self._commit: GroupCommit[_Work, _Committed] = GroupCommit(sessions, self._apply)

    @override
    async def RegisterUser(self, request: pb.RegisterUserRequest, context: Context) -> pb.RegisterUserResponse:
        committed = await self._execute(check_registration(request.user))
        created = committed.effect is Effect.CREATED
        bind_log_fields(created=created)
        return pb.RegisterUserResponse(success=True, user_id=committed.person_id, created=created)

    @override
    async def RegisterUsers(self, request: pb.RegisterUsersRequest, context: Context) -> pb.RegisterUsersResponse:
        batch = self._batches.read(request)
        try:
            done = await self._commit.each(batch.admit(check_registration))
        finally:
            self._topic.wake()
        response = pb.RegisterUsersResponse()
        batch.answer(response, done, lambda committed: {"user_id": committed.person_id, "created": committed.effect is Effect.CREATED})
        return response

    @override
    async def IdentifyUser(self, request: pb.IdentifyUserRequest, context: Context) -> pb.IdentifyUserResponse:
        command = identify_user(request)
        person_id = (await self._execute(command)).person_id
        async with self._sessions.reading() as session:
            person_ids = await Persons(session).people(command.browser)
        given = bool(request.session_id) + bool(request.anonymous_id)
        success = given == len(command.browser) and all(person_ids.get(identifier) == person_id for identifier in command.browser)
        return pb.IdentifyUserResponse(success=success, user_id=person_id)

    @override
    async def GetUser(self, request: pb.GetUserRequest, context: Context) -> pb.GetUserResponse:
        return pb.GetUserResponse(user=await self._user(identifier_of(user_id=request.id)))

    @override
    async def FindUser(self, request: pb.FindUserRequest, context: Context) -> pb.FindUserResponse:
        async with self._sessions.reading() as session:
            person_id = await Persons(session).person(identifier_of(email_hash=request.email_hash))
        if not person_id:
            raise unknown_user("email_hash")
        return pb.FindUserResponse(user_id=person_id)

    @override
    async def UpdateUser(self, request: pb.UpdateUserRequest, context: Context) -> pb.UpdateUserResponse:
        committed = await self._execute(await self._requests.update_user(request.id, request.user))
        return pb.UpdateUserResponse(success=True, user=await self._user(user_identifier(committed.person_id)))

    @override
    async def MergeUsers(self, request: pb.MergeUsersRequest, context: Context) -> pb.MergeUsersResponse:
        committed = await self._execute(MergeUsers(request.id, request.merged_user_id, request.reason))
        return pb.MergeUsersResponse(success=True, user_id=committed.person_id, duplicate=committed.effect is Effect.NONE)

    @override
    async def UnmergeUsers(self, request: pb.UnmergeUsersRequest, context: Context) -> pb.UnmergeUsersResponse:
        committed = await self._execute(UnmergeUsers(request.id, request.merged_user_id))
        return pb.UnmergeUsersResponse(success=True, user_id=committed.user_id, duplicate=committed.effect is Effect.NONE)

    @override
    async def ListIdentityChanges(
        self, request: pb.ListIdentityChangesRequest, context: Context
    ) -> AsyncIterator[pb.ListIdentityChangesResponse]:
        async for position, payloads in self._topic.history(self._sessions, request.partition, request.after_position):
            yield pb.ListIdentityChangesResponse(position=position, changes=[IdentityChanged.FromString(each) for each in payloads])

    async def _execute(self, work: _Work) -> _Committed:
        """Commits a command, and has the relay publish what it changed."""
        committed = await self._commit(work)
        self._topic.wake()
        return committed

    async def _apply(self, session: AsyncSession, works: Sequence[_Work]) -> Sequence[_Committed]:
        """Applies commands in one transaction."""
        commands = await self._commands(works)
        identifiers = {identifier for command in commands for identifier in command.identifiers}
        async with change_graph(session, self._topic) as graph:
            await graph.load(identifiers)
            suppressed = await graph.identities.suppressed(self._hasher, identifiers)
            applied = [await command.apply(graph, suppressed) for command in commands]
        return [_Committed(each.user_id, await graph.person_of(each.user_id), each.effect) for each in applied]

    async def _commands(self, works: Sequence[_Work]) -> Sequence[Command]:
        """Makes commands of registrations. Their keys are made together, and committed before the first statement of the graph."""
        registrations = iter(await self._requests.register_users([each for each in works if isinstance(each, pb.Registration)]))
        return [next(registrations) if isinstance(each, pb.Registration) else each for each in works]

    async def _user(self, identifier: str) -> pb.User:
        async with self._sessions.reading() as session:
            identities, persons = Identities(session), Persons(session)
            person_id = await persons.person(identifier)
            user_ids = (await identities.members([person_id])).get(person_id) if person_id else None
            if not user_ids:
                raise unknown_user("id")
            rows = await identities.users(user_ids)
            links = await identities.links_of(user_ids)
            person_ids = await persons.people({link.subject for link in links})
            subscriptions = await identities.subscriptions(user_ids)
        users = [rows[user_id] for user_id in user_ids]
        decryptor = await self._keys.decryptor(sealed for row in users for sealed in (row.email, row.first_name, row.last_name))
        return person(users, links, person_ids, subscriptions.values(), decryptor=decryptor, currency=self._currency)
