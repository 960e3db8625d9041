"""The rpcs of identity."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeAlias

from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from pmp.identity.v1 import identity_pb2 as pb
from pmp.identity.v1.change_pb2 import IdentityChanged
from pmp.identity.v1.identity_pb2_grpc import IdentityServiceServicer
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import override

from kit.boundary.caller import Context, bind_log_fields
from kit.database.group_commit import GroupCommit
from kit.database.transactions import Sessions
from kit.errors import Conflict, InvalidRequest, NotFound, Violation
from kit.log.publish.state_topic import StateTopic
from kit.people.keys.store import Keys
from kit.people.persons import Persons, subject_of
from kit.people.suppression import Suppressed
from kit.rules import ANY_AGE, Period, check, wrong_struct, wrong_time
from kit.settings import Settings
from services.identity import rules
from services.identity.graph import Graph, weak_subjects
from services.identity.messages import EMAIL_CONTEXT, NAME_CONTEXT, person
from services.identity.profiles import UPDATE, Address, Profile, Registration, Subscription, register, unsuppressed, write
from services.identity.repository import Identities

_Work: TypeAlias = Callable[[Graph, Suppressed], Awaitable[tuple[str, bool]]]
"""Changes the graph; answers the user it was about, and whether that was the case that the rpc tells apart."""
_IDENTIFY = "identify"
_MERGE = "merge"


class _Change(NamedTuple):
    """A change of the graph."""

    work: _Work
    names: Sequence[str] = ()
    """What it asks for, so that changes that are made together look it up once."""


class _Done(NamedTuple):
    """What became of a change."""

    user_id: str
    person_id: str
    flag: bool


class IdentityServicer(IdentityServiceServicer):
    """Registers, finds, joins and separates users."""

    def __init__(self, settings: Settings, sessions: Sessions, topic: StateTopic, keys: Keys) -> None:
        self._currency = settings.site_currency
        self._sessions = sessions
        self._topic = topic
        self._vault = keys.vault
        self._keys = keys
        # The graph has one writer at a time anyway.
        self._together: GroupCommit[_Change, _Done] = GroupCommit(sessions, self._changed)

    @override
    async def RegisterUser(self, request: pb.RegisterUserRequest, context: Context) -> pb.RegisterUserResponse:
        told = await self._registration(request.user)

        async def work(graph: Graph, suppressed: Suppressed) -> tuple[str, bool]:
            return await register(graph, unsuppressed(told, suppressed))

        done = await self._change(work, told.names)
        bind_log_fields(created=done.flag)
        return pb.RegisterUserResponse(success=True, user_id=done.person_id, created=done.flag)

    @override
    async def IdentifyUser(self, request: pb.IdentifyUserRequest, context: Context) -> pb.IdentifyUserResponse:
        check(_wrong("timestamp", request.timestamp))
        subject, at = subject_of(user_id=request.user_id), _at(request.timestamp)
        visit, told = weak_subjects(request.session_id, request.anonymous_id), bool(request.session_id) + bool(request.anonymous_id)

        async def work(graph: Graph, suppressed: Suppressed) -> tuple[str, bool]:
            if suppressed.holds(subject, at):
                raise _unknown("user_id")
            user_id = graph.owner(subject)
            if not user_id and rules.wordpress_id(subject) is not None:
                user_id = graph.create(subject, at, _IDENTIFY).id
            if not user_id:
                raise _unknown("user_id")
            for name in visit:
                if not suppressed.holds(name, at):
                    graph.link(name, user_id, at, _IDENTIFY)
            return user_id, False

        root = (await self._change(work, [subject, *visit])).person_id
        async with self._sessions.reading() as session:
            leads = await Persons(session).people(visit)
        return pb.IdentifyUserResponse(success=told == len(visit) and all(leads.get(name) == root for name in visit), user_id=root)

    @override
    async def GetUser(self, request: pb.GetUserRequest, context: Context) -> pb.GetUserResponse:
        return pb.GetUserResponse(user=await self._user(subject_of(user_id=request.id)))

    @override
    async def UpdateUser(self, request: pb.UpdateUserRequest, context: Context) -> pb.UpdateUserResponse:
        subject = subject_of(user_id=request.id)
        profile = await self._update(request.user, subject)
        address = profile.address.subject if profile.address else ""

        async def work(graph: Graph, suppressed: Suppressed) -> tuple[str, bool]:
            user_id = await graph.resolve(subject)
            if not user_id:
                raise _unknown("id")
            if suppressed.precedes(address, profile.at):
                raise Conflict("email: this person was erased")
            await write(graph, await graph.user(user_id), profile, UPDATE)
            return user_id, False

        done = await self._change(work, [address])
        return pb.UpdateUserResponse(success=True, user=await self._user(f"user:{done.person_id}"))

    @override
    async def MergeUsers(self, request: pb.MergeUsersRequest, context: Context) -> pb.MergeUsersResponse:
        async def work(graph: Graph, _: Suppressed) -> tuple[str, bool]:
            user_id, merged = await _both(graph, request.id, request.merged_user_id)
            if user_id == merged:
                raise _invalid("merged_user_id", "merged_user_id is the same user as id")
            one, other = await graph.person(user_id), await graph.person(merged)
            if one == other:
                return user_id, True
            refusal = rules.merge_refusal(await graph.wordpress_ids(one), await graph.wordpress_ids(other))
            if refusal:
                raise _invalid("merged_user_id", refusal)
            await graph.join(one, other, _MERGE, request.reason)
            return user_id, False

        done = await self._change(work)
        return pb.MergeUsersResponse(success=True, user_id=done.person_id, duplicate=done.flag)

    @override
    async def UnmergeUsers(self, request: pb.UnmergeUsersRequest, context: Context) -> pb.UnmergeUsersResponse:
        async def work(graph: Graph, _: Suppressed) -> tuple[str, bool]:
            user_id, merged = await _both(graph, request.id, request.merged_user_id)
            merge = await graph.identities.merge(merged)
            if merge is None or (merge.user_id != user_id and await graph.person(merged) != await graph.person(user_id)):
                raise NotFound("merged_user_id: it was not merged into this user")
            if merge.undone_at is not None:
                return merged, True
            await graph.separate(merge)
            return merged, False

        done = await self._change(work)
        return pb.UnmergeUsersResponse(success=True, user_id=done.user_id, duplicate=done.flag)

    @override
    async def ListIdentityChanges(
        self, request: pb.ListIdentityChangesRequest, context: Context
    ) -> AsyncIterator[pb.ListIdentityChangesResponse]:
        async for position, payloads in self._topic.history(self._sessions, request.partition, request.after_position):
            yield pb.ListIdentityChangesResponse(position=position, changes=[IdentityChanged.FromString(each) for each in payloads])

    async def _change(self, work: _Work, names: Sequence[str] = ()) -> _Done:
        """Changes the graph and tells of it."""
        done = await self._together(_Change(work, names))
        self._topic.wake()
        return done

    async def _changed(self, session: AsyncSession, changes: Sequence[_Change]) -> Sequence[_Done]:
        graph = Graph(Identities(session), Persons(session), datetime.now(UTC), shared=len(changes) > 1)
        await graph.lock()
        names = {name for change in changes for name in change.names}
        await graph.know(names)
        suppressed = await graph.identities.suppressed(self._vault, names)
        made = [await change.work(graph, suppressed) for change in changes]
        told = await graph.settle()
        done = [_Done(user_id, await graph.person(user_id), flag) for user_id, flag in made]
        await self._topic.publish(session, told)
        return done

    async def _user(self, subject: str) -> pb.User:
        async with self._sessions.reading() as session:
            identities, persons = Identities(session), Persons(session)
            root = await persons.person(subject)
            user_ids = (await identities.members([root])).get(root) if root else None
            if not user_ids:
                raise _unknown("id")
            rows = await identities.users(user_ids)
            links = await identities.links_of(user_ids)
            leads = await persons.people({link.subject for link in links})
            subscriptions = await identities.subscriptions(user_ids)
        users = [rows[user_id] for user_id in user_ids]
        decryptor = await self._keys.decryptor(sealed for row in users for sealed in (row.email, row.first_name, row.last_name))
        return person(users, links, leads, subscriptions, decryptor=decryptor, currency=self._currency)

    async def _registration(self, user: pb.Registration) -> Registration:
        check(
            *(_wrong(name, getattr(user, name)) for name in ("registration_date", "timestamp")),
            *_wrong_lists(user),
            wrong_struct("preferences", user.preferences),
        )
        at = _at(user.timestamp)
        given = {name: getattr(user, name) for name in ("first_name", "last_name") if getattr(user, name)}
        registered = _at(user.registration_date) if user.HasField("registration_date") else None
        wordpress = subject_of(user_id=str(user.wordpress_id or ""))
        address, names = await self._sealed(wordpress, user.email, given, returned_at=min(at, registered or at))
        profile = Profile(
            at,
            address=address,
            names=names,
            preferences=MessageToDict(user.preferences),
            subscriptions=_subscriptions(user, at),
            registration_date=registered,
        )
        campaign = {each.name: value for each, value in user.utm_parameters.ListFields()}
        return Registration(user.wordpress_id, weak_subjects(user.session_id, user.anonymous_id), campaign, profile)

    async def _update(self, user: pb.UserUpdate, subject: str) -> Profile:
        check(
            *(_wrong(name, getattr(user, name)) for name in ("updated_at", "last_login")),
            *_wrong_lists(user),
            wrong_struct("preferences", user.preferences),
        )
        at = _at(user.updated_at)
        given = {name: getattr(user, name) for name in ("first_name", "last_name") if user.HasField(name)}
        address, names = await self._sealed(subject, user.email, given)
        return Profile(
            at,
            address=address,
            names=names,
            preferences=MessageToDict(user.preferences),
            subscriptions=_subscriptions(user, at),
            last_login=_at(user.last_login) if user.HasField("last_login") else None,
        )

    async def _sealed(
        self, subject: str, email: str, names: Mapping[str, str], returned_at: datetime | None = None
    ) -> tuple[Address | None, Mapping[str, bytes | None]]:
        """An address under its own key, and names under that of whoever bears them; None for what is empty, or was erased.

        Args:
            subject: who bears the names; empty for whoever has the address.
            email: empty for none.
            names: `first_name`, `last_name`.
            returned_at: when somebody registered, who may be one that was erased before.
        """
        email_hash = self._vault.fingerprint(email) if email else b""
        own = subject_of(email_hash=email_hash)
        bearer = subject or own
        seals = await self._keys.seals(
            {*([own] if own else ()), *([bearer] if any(names.values()) else ())}, {own: returned_at} if own and returned_at else None
        )
        address = Address(email_hash, seals[own].seal(email, context=EMAIL_CONTEXT) or None) if own else None
        return address, {name: (value and seals[bearer].seal(value, context=NAME_CONTEXT)) or None for name, value in names.items()}


async def _both(graph: Graph, user_id: str, merged_user_id: str) -> tuple[str, str]:
    """The users of two ids."""
    users = await graph.resolve(subject_of(user_id=user_id)), await graph.resolve(subject_of(user_id=merged_user_id))
    for field, user in zip(("id", "merged_user_id"), users, strict=True):
        if not user:
            raise _unknown(field)
    return users


def _at(timestamp: Timestamp) -> datetime:
    """The time, or now when none is given."""
    return timestamp.ToDatetime(UTC) if timestamp.ByteSize() else datetime.now(UTC)


def _wrong(field: str, timestamp: Timestamp) -> Violation | None:
    return wrong_time(field, timestamp, Period.of(ANY_AGE))


def _wrong_lists(user: pb.Registration | pb.UserUpdate) -> list[Violation | None]:
    return [_wrong(f"email_subscriptions[{index}].changed_at", each.changed_at) for index, each in enumerate(user.email_subscriptions)]


def _subscriptions(user: pb.Registration | pb.UserUpdate, at: datetime) -> list[Subscription]:
    """The mailing lists told; at the time of the telling where none is given."""
    return [
        Subscription(each.list, each.subscribed, _at(each.changed_at) if each.HasField("changed_at") else at)
        for each in user.email_subscriptions
    ]


def _invalid(field: str, description: str) -> InvalidRequest:
    return InvalidRequest([Violation(field, description)])


def _unknown(field: str) -> NotFound:
    return NotFound(f"{field}: there is no such user")
