"""What identity derives step by step follows from all that was reported, and an undone merge leaves no trace."""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pmp.identity.v1 import identity_pb2 as pb
from pmp.identity.v1.change_pb2 import IdentityChanged
from pmp.log.v1 import log_pb2
from pmp.purchases.v1.change_pb2 import PurchaseChanged, PurchasedLine
from pydantic import SecretStr
from sqlalchemy import delete, select

from kit.database.engine import Database, open_database
from kit.errors import InvalidRequest, MeshError, NotFound
from kit.log.publish.state_topic import StateTopic
from kit.log.streams import Delivery, Offset
from kit.log.tables import outbox, topic_state
from kit.migrate import migrate
from kit.people.hashing import KeyedHasher
from kit.people.identifiers import identifier_of
from kit.people.keys.store import Keys, open_keys
from kit.people.persons import Persons, person_links, persons, users
from kit.settings import KEYS_DATABASE, Settings
from services.identity.commands import Command, IdentifyUser, MergeUsers, RegisterUser, UnmergeUsers
from services.identity.consumers import FollowPurchases
from services.identity.messages import user_changed
from services.identity.models import Base, GraphLockRow, OrderRow, UserRow
from services.identity.profiles import Address, Profile, Registration
from services.identity.servicer import IdentityServicer
from services.identity.unit_of_work import change_graph

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
CONTEXT: Any = None


class Register(NamedTuple):
    wordpress: int
    email: int
    session: int
    seconds: int


class Identify(NamedTuple):
    wordpress: int
    session: int
    seconds: int


class Buy(NamedTuple):
    number: int
    wordpress: int
    email: int
    session: int
    cents: int
    paid: bool
    membership: bool


class Merge(NamedTuple):
    one: int
    other: int
    undo: bool


FEW = st.integers(0, 3)
STEPS = st.lists(
    st.one_of(
        st.builds(Register, FEW, FEW, FEW, st.integers(0, 9)).filter(lambda it: bool(it.wordpress or it.email)),
        st.builds(Identify, st.integers(1, 3), st.integers(1, 3), st.integers(0, 9)),
        st.builds(Buy, st.integers(1, 5), FEW, FEW, st.integers(1, 3), st.integers(0, 99_999), st.booleans(), st.booleans()),
        st.builds(Merge, st.integers(0, 9), st.integers(0, 9), st.booleans()),
    ),
    min_size=3,
    max_size=12,
)

COMMANDS = st.lists(
    st.one_of(
        st.builds(Register, FEW, FEW, FEW, st.integers(0, 9)).filter(lambda it: bool(it.wordpress or it.email)),
        st.builds(Identify, st.integers(1, 3), st.integers(1, 3), st.integers(0, 9)),
        st.builds(Merge, st.integers(0, 5), st.integers(0, 5), st.booleans()),
    ),
    min_size=2,
    max_size=10,
)
MEMBERS = [*(Register(number, 0, number, number) for number in range(1, 4)), *(Register(0, number, 0, number) for number in range(1, 4))]


class Shop:
    """Identity on SQLite without a network."""

    def __init__(self, settings: Settings, database: Database, keys: Keys) -> None:
        self._database = database
        self._topic = topic = StateTopic("identity", settings.log_partitions)
        self.hasher = keys.hasher
        self.servicer = IdentityServicer(settings, database.sessions, topic, keys)
        self._follow = FollowPurchases(topic, self.hasher)

    async def forget(self) -> None:
        async with self._database.sessions.begin() as session:
            for table in (*Base.metadata.sorted_tables, person_links, users, persons, topic_state, outbox):
                if table is not GraphLockRow.__table__:
                    await session.execute(delete(table))

    async def known(self) -> list[str]:
        """The ids of all users, in the order in which they were created."""
        async with self._database.sessions() as session:
            return list(await session.scalars(select(UserRow.id).order_by(UserRow.id)))

    async def commit(self, commands: Sequence[Command]) -> None:
        """Applies commands in one transaction."""
        async with self._database.sessions.begin() as session, change_graph(session, self._topic) as graph:
            await graph.load({identifier for command in commands for identifier in command.identifiers})
            for command in commands:
                await command.apply(graph, {})

    async def apply(self, step: Register | Identify | Buy | Merge) -> None:
        match step:
            case Register(wordpress, email, session, seconds):
                user = {"wordpress_id": wordpress, "email": _email(email), "session_id": f"s{session}" if session else ""}
                user |= {"timestamp": (NOON + timedelta(seconds=seconds)).isoformat(), "utm_parameters": {"source": f"at{seconds}"}}
                await self.servicer.RegisterUser(ParseDict({"user": user}, pb.RegisterUserRequest()), CONTEXT)
            case Identify(wordpress, session, seconds):
                at = Timestamp()
                at.FromDatetime(NOON + timedelta(seconds=seconds))
                await self.servicer.IdentifyUser(
                    pb.IdentifyUserRequest(user_id=str(wordpress), session_id=f"s{session}", timestamp=at), CONTEXT
                )
            case Buy():
                await self._buy(step)
            case Merge(one, other, undo):
                known = await self.known()
                if known:
                    with suppress(InvalidRequest, NotFound):
                        await (self.unmerge if undo else self.merge)(known[one % len(known)], known[other % len(known)])

    async def merge(self, one: str, other: str) -> bool:
        answer = await self.servicer.MergeUsers(pb.MergeUsersRequest(id=one, merged_user_id=other), CONTEXT)
        return not answer.duplicate

    async def unmerge(self, one: str, other: str) -> None:
        await self.servicer.UnmergeUsers(pb.UnmergeUsersRequest(id=one, merged_user_id=other), CONTEXT)

    async def _buy(self, step: Buy) -> None:
        purchase = PurchaseChanged(
            purchase_id=f"p{step.number}", base_net_amount=f"{Decimal(step.cents).scaleb(-2)}", session_id=f"s{step.session}"
        )
        purchase.timestamp.FromDatetime(NOON)
        if step.wordpress:
            purchase.user_id = str(step.wordpress)
        elif step.email:
            purchase.email_hash = self.hasher.fingerprint(_email(step.email))
        if step.paid:
            purchase.paid_at.FromDatetime(NOON)
        if step.membership:
            purchase.lines.append(PurchasedLine(product_type="membership"))
        purchase.subject = identifier_of(user_id=purchase.user_id, email_hash=purchase.email_hash, session_id=purchase.session_id)
        async with self._database.sessions.begin() as session:
            record = log_pb2.Record(type=purchase.DESCRIPTOR.full_name, payload=purchase.SerializeToString())
            await self._follow(session, [Delivery("purchases", 0, Offset(1, 0), 0, 0, record)])

    async def people(self) -> dict[str, pb.User]:
        """Every user as `GetUser` returns it, without the time of its last change."""
        found: dict[str, pb.User] = {}
        for user_id in await self.known():
            found[user_id] = (await self.servicer.GetUser(pb.GetUserRequest(id=user_id), CONTEXT)).user
            found[user_id].ClearField("updated_at")
        return found

    async def check(self) -> None:
        """The rows follow from links, merges and orders, and the topic has them as last published."""
        async with self._database.sessions() as session:
            rows = {row.id: row for row in await session.scalars(select(UserRow))}
            roots = {user_id: await Persons(session).person(f"user:{user_id}") for user_id in rows}
            orders: dict[str, list[OrderRow]] = defaultdict(list)
            for order in await session.scalars(select(OrderRow)):
                orders[await Persons(session).person(order.subject)].append(order)
            published = await session.execute(select(topic_state.c.key, topic_state.c.payload).where(topic_state.c.key.startswith("user ")))
            messages = {row.key.removeprefix("user "): IdentityChanged.FromString(row.payload) for row in published}
        for user_id, row in rows.items():
            mine = orders[roots[user_id]]
            value = sum((order.base_net_amount for order in mine), Decimal(0))
            assert row.lifetime_value == (value if roots[user_id] == user_id else 0)
            paid = [order for order in mine if order.paid]
            assert row.user_type == ("subscriber" if any(order.membership for order in paid) else "customer" if paid else "prospect")
        assert messages == {user_id: user_changed(row) for user_id, row in rows.items()}


def _command(step: Register | Identify | Merge, user_ids: Sequence[str], hasher: KeyedHasher) -> Command:
    match step:
        case Register(wordpress, email, session, seconds):
            address = Address(hasher.fingerprint(_email(email)), None) if email else None
            profile = Profile(NOON + timedelta(seconds=seconds), address=address)
            browser = [f"session:s{session}"] if session else []
            return RegisterUser(Registration(wordpress, browser, {"source": f"at{seconds}"}, profile))
        case Identify(wordpress, session, seconds):
            return IdentifyUser(f"wordpress:{wordpress}", [f"session:s{session}"], NOON + timedelta(seconds=seconds))
        case Merge(one, other, undo):
            both = user_ids[one % len(user_ids)], user_ids[other % len(user_ids)]
            return UnmergeUsers(*both) if undo else MergeUsers(*both, reason="")


def _email(number: int) -> str:
    return f"u{number}@example.org" if number else ""


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def shop(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder: Path = tmp_path_factory.mktemp("identity")
    settings = Settings(
        mesh_token=SecretStr("the mesh's own"),
        vault_key=SecretStr("A" * 43 + "="),
        key_encryption_keys=SecretStr("B" * 43 + "="),
        database_url=f"sqlite+aiosqlite:///{folder}/{{service}}.db",
        redis_url="redis://nowhere",
    )
    for name in ("identity", KEYS_DATABASE):
        runner.run(migrate(name, settings.database(name)))
    opened, opened_keys = open_database(settings.database("identity")), open_keys(settings)
    yield Shop(settings, runner.run(opened.__aenter__()), runner.run(opened_keys.__aenter__()))
    for each in (opened, opened_keys):
        runner.run(_closed(each.__aexit__(None, None, None)))


async def _closed(closing: Any) -> None:
    await closing


def test_what_is_derived_step_by_step_follows_from_all_that_was_reported(runner: asyncio.Runner, shop: Shop) -> None:
    def run(work: Coroutine[Any, Any, None]) -> None:
        runner.run(work)

    async def story(steps: list[Register | Identify | Buy | Merge], choice: tuple[int, int]) -> None:
        await shop.forget()
        for step in steps:
            await shop.apply(step)
            await shop.check()
        before = await shop.people()
        roots = sorted({user.user_id for user in before.values()})
        if not roots:
            return
        one, other = (roots[number % len(roots)] for number in choice)
        try:
            merged = await shop.merge(one, other)
        except MeshError:
            merged = False
        if merged:
            await shop.check()
            assert (await shop.people())[other].user_id == one
            await shop.unmerge(one, other)
        await shop.check()
        assert await shop.people() == before

    @settings(deadline=None, derandomize=True, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
    @given(STEPS, st.tuples(st.integers(0, 9), st.integers(0, 9)))
    def property_(steps: list[Register | Identify | Buy | Merge], choice: tuple[int, int]) -> None:
        run(story(steps, choice))

    property_()


def test_changes_that_share_a_transaction_come_out_as_one_after_another(runner: asyncio.Runner, shop: Shop) -> None:
    async def start() -> list[str]:
        await shop.forget()
        for member in MEMBERS:
            await shop.apply(member)
        return await shop.known()

    async def end() -> str:
        await shop.check()
        people = [(user_id, MessageToDict(user)) for user_id, user in (await shop.people()).items()]
        text = json.dumps(people, sort_keys=True)
        for number, user_id in enumerate(await shop.known()):
            text = text.replace(user_id, f"U{number}")
        return re.sub(r'"createdAt": "[^"]+"', "", text)

    async def compare(steps: list[Register | Identify | Merge]) -> None:
        user_ids = await start()
        accepted: list[Register | Identify | Merge] = []
        for step in steps:
            with suppress(MeshError):
                await shop.commit([_command(step, user_ids, shop.hasher)])
                accepted.append(step)
        one_by_one = await end()
        user_ids = await start()
        await shop.commit([_command(step, user_ids, shop.hasher) for step in accepted])
        assert await end() == one_by_one

    @settings(deadline=None, derandomize=True, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
    @example([Merge(0, 3, undo=False), Merge(0, 3, undo=True), Merge(0, 3, undo=False), Identify(1, 3, 0)])
    @example([Merge(3, 0, undo=False), Merge(4, 3, undo=False), Merge(3, 0, undo=True), Register(2, 1, 1, 9)])
    @given(COMMANDS)
    def property_(steps: list[Register | Identify | Merge]) -> None:
        runner.run(compare(steps))

    property_()


def test_a_merge_is_refused_for_one_made_in_the_same_transaction(runner: asyncio.Runner, shop: Shop) -> None:
    async def run() -> None:
        await shop.forget()
        for member in MEMBERS:
            await shop.apply(member)
        account, other, _, lead, *_ = await shop.known()
        with pytest.raises(InvalidRequest):
            await shop.commit([MergeUsers(lead, account, reason=""), MergeUsers(lead, other, reason="")])
        await shop.commit([MergeUsers(lead, account, reason=""), UnmergeUsers(lead, account), MergeUsers(lead, other, reason="")])
        assert {(await shop.people())[user_id].user_id for user_id in (lead, other)} == {lead}

    runner.run(run())
