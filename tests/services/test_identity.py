"""Identity through a real channel, a real log and each kind of database."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import cycle, permutations
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from pmp.identity.v1 import identity_pb2 as pb
from pmp.identity.v1.change_pb2 import IdentityChanged
from pmp.identity.v1.identity_pb2_grpc import IdentityServiceStub
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.log.v1 import log_pb2
from pmp.purchases.v1.change_pb2 import PurchaseChanged
from sqlalchemy import func, select, text, update

from kit.log import offsets
from kit.log.consume import dead_letters
from kit.log.publish.outbox import Outbox
from kit.log.publish.relay import Relay
from kit.log.publish.state_topic import StateTopic
from kit.log.streams import START, partition_of
from kit.people.identifiers import identifier_of
from kit.people.keys.seals import Seal
from kit.people.persons import SHARED, Persons
from kit.service.resources import Resources
from kit.service.runtime import ServiceRuntime
from kit.settings import Settings
from services.identity.composition import ROLE
from services.identity.inactivity import Inactivity
from services.identity.merges import LARGEST_PERSON
from services.identity.models import UserRow
from tests.databases import newest_database
from tests.roles import serving, settings_for

PAYLOADS = Path(__file__).parent.parent / "payloads"
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = 86_400


def at(seconds: float) -> str:
    """So many seconds after noon."""
    return (NOON + timedelta(seconds=seconds)).isoformat()


class Identity:
    """The service, and its subscriptions step by step."""

    def __init__(self, runtime: ServiceRuntime, channels: list[grpc.aio.Channel], seal: Seal) -> None:
        settings = runtime.settings
        self.database = runtime.database
        self.log = runtime.log
        self.hasher = runtime.keys.hasher
        self._seal = seal
        self.partitions = settings.log_partitions
        self.token = settings.mesh_token.get_secret_value()
        self._stubs: Iterator[Any] = cycle([IdentityServiceStub(channel) for channel in channels])
        self._topic = StateTopic("identity", settings.log_partitions)
        self.consumers = {each.topic: runtime.consumer(each) for each in runtime.subscriptions}

    def _metadata(self, scope: str) -> tuple[tuple[str, str], ...]:
        return (("x-pmp-mesh-token", self.token), ("x-pmp-client", "shop"), ("x-pmp-scope", scope), ("x-pmp-address", "198.51.100.9"))

    @property
    def _stub(self) -> Any:
        """Any of the processes: callers don't know which answers."""
        return next(self._stubs)

    async def register(self, *, scope: str = "site", **user: Any) -> pb.RegisterUserResponse:
        return await self._stub.RegisterUser(ParseDict({"user": user}, pb.RegisterUserRequest()), metadata=self._metadata(scope))

    async def identify(self, *, scope: str = "site", **fields: Any) -> pb.IdentifyUserResponse:
        return await self._stub.IdentifyUser(ParseDict(fields, pb.IdentifyUserRequest()), metadata=self._metadata(scope))

    async def get(self, user_id: str, *, scope: str = "site") -> pb.User:
        return (await self._stub.GetUser(pb.GetUserRequest(id=user_id), metadata=self._metadata(scope))).user

    async def update(self, user_id: str, *, scope: str = "site", **user: Any) -> pb.User:
        request = ParseDict({"id": user_id, "user": user}, pb.UpdateUserRequest())
        return (await self._stub.UpdateUser(request, metadata=self._metadata(scope))).user

    async def merge(self, user_id: str, merged: str, *, scope: str = "admin", reason: str = "") -> pb.MergeUsersResponse:
        request = pb.MergeUsersRequest(id=user_id, merged_user_id=merged, reason=reason)
        return await self._stub.MergeUsers(request, metadata=self._metadata(scope))

    async def unmerge(self, user_id: str, merged: str, *, scope: str = "admin") -> pb.UnmergeUsersResponse:
        request = pb.UnmergeUsersRequest(id=user_id, merged_user_id=merged)
        return await self._stub.UnmergeUsers(request, metadata=self._metadata(scope))

    async def history(self) -> list[IdentityChanged]:
        metadata = (("x-pmp-mesh-token", self.token),)
        calls = [
            self._stub.ListIdentityChanges(pb.ListIdentityChangesRequest(partition=p), metadata=metadata) for p in range(self.partitions)
        ]
        return [change for call in calls for answer in [each async for each in call] for change in answer.changes]

    async def relay(self, topic: str = "identity") -> None:
        """Lets a new process publish what is committed."""
        relay = Relay(self.database.sessions, self.log, topic, keep=timedelta(hours=1))
        for partition in range(self.partitions):
            while await relay.step(partition):
                pass

    async def put(self, topic: str, *messages: tuple[str, Message]) -> None:
        """Publishes messages of another service, each under its key."""
        async with self.database.sessions.begin() as session:
            for key, message in messages:
                record = log_pb2.Record(type=message.DESCRIPTOR.full_name, payload=message.SerializeToString())
                await Outbox(topic).add(session, partition_of(key, self.partitions), [record])
        await self.relay(topic)

    async def follow(self, topic: str) -> None:
        """Applies all messages of a topic, none of which may become a dead letter."""
        for partition in range(self.partitions):
            while await self.consumers[topic].step(partition, block_ms=1):
                pass
        async with self.database.sessions() as session:
            assert [letter.reason for letter in await dead_letters.find(session)] == []

    async def saw(self, *events: dict[str, Any]) -> None:
        """Publishes events of the site, and has identity apply them."""
        stored = [self.stored(number, **fields) for number, fields in enumerate(events)]
        await self.put("events", *((message.event.session_id or message.event.id, message) for message in stored))
        await self.follow("events")

    def stored(self, number: int = 0, *, email: str = "", scope: str = "site", history: bool = False, **fields: Any) -> EventStored:
        event = {"id": f"e{number}", "event_type": "page_view", "timestamp": at(number), **fields}
        extra = {"enrichment": event.pop("enrichment", {})}
        message = ParseDict({"event": event, "scope": scope, **extra}, EventStored())
        if email:
            message.email_hash = self.hasher.fingerprint(email)
            message.sealed_email = b"" if history else self._seal.seal(email, context="email")
        return message

    async def sold(self, *orders: dict[str, Any]) -> None:
        """Publishes orders, and has identity apply them."""
        messages = [self.purchase(**fields) for fields in orders]
        await self.put("purchases", *((message.purchase_id, message) for message in messages))
        await self.follow("purchases")

    def purchase(self, number: int = 1, net: str = "199.00", *, email: str = "", paid: bool = True, **fields: Any) -> PurchaseChanged:
        base = {"purchase_id": f"p{number}", "timestamp": at(0), "base_net_amount": net, "base_currency": "USD"}
        if paid:
            base["paid_at"] = at(1)
        message = ParseDict({**base, **fields}, PurchaseChanged())
        if email:
            message.email_hash = self.hasher.fingerprint(email)
            message.sealed_email = self._seal.seal(email, context="email")
        message.subject = identifier_of(user_id=message.user_id, email_hash=message.email_hash, session_id=message.session_id)
        return message

    async def person(self, identifier: str) -> str:
        """The person that an identifier leads to; empty for none."""
        async with self.database.sessions() as session:
            return await Persons(session).person(identifier)

    async def by_email(self, email: str) -> pb.User:
        return await self.get(await self.person(identifier_of(email_hash=self.hasher.fingerprint(email))))

    async def look(self, day: float) -> int:
        """Has two processes look for inactive persons at once, so many days after noon; returns how many users they changed."""
        looks = [Inactivity(self.database.sessions, self._topic, timedelta(days=180)) for _ in range(2)]
        return sum(await asyncio.gather(*(each.look(NOON + timedelta(days=day)) for each in looks)))

    async def users(self) -> int:
        async with self.database.sessions() as session:
            return await session.scalar(select(func.count()).select_from(UserRow)) or 0

    async def historical(self) -> dict[str, bool]:
        """Whether each published user is history, by its WordPress id or else its address."""
        await self.relay()
        addresses = {self.hasher.fingerprint(f"{name}@example.org"): f"{name}@example.org" for name in ("buyer", "lead", "guest")}
        users = [change.user for change in await self.published() if change.HasField("user")]
        newest = {user.user_id: user for user in users}.values()
        return {str(user.wordpress_id or addresses[user.email_hash]): user.historical for user in newest}

    async def published(self) -> list[IdentityChanged]:
        entries = [entry for p in range(self.partitions) for entry in await self.log.read("identity", p, START, limit=1000, block_ms=1)]
        records = [record for entry in entries for record in log_pb2.Pack.FromString(entry.pack).records]
        assert {record.type for record in records} <= {IdentityChanged.DESCRIPTOR.full_name}
        return [IdentityChanged.FromString(record.payload) for record in records]


@pytest.fixture
async def identity(settings: Settings, resources: Resources) -> AsyncIterator[Identity]:
    async with newest_database(settings, "identity"):
        # Two of several processes that serve one database.
        runtime, replica = (ROLE.compose(settings_for(ROLE, settings), resources) for _ in range(2))
        async with serving(runtime) as one, serving(replica) as other:
            seal = (await resources.keys.seals(["email:others"]))["email:others"]
            yield Identity(runtime, [one, other], seal)


def payload(method: str) -> dict[str, Any]:
    return json.loads((PAYLOADS / f"identity.{method}.json").read_text())


def refusal(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """The violations of a refused request, by field."""
    metadata = dict(error.trailing_metadata() or ())
    bad = BadRequest()
    assert Status.FromString(metadata["grpc-status-details-bin"]).details[0].Unpack(bad)  # pyright: ignore[reportArgumentType]
    return {violation.field: violation.description for violation in bad.field_violations}


async def test_a_registration_is_kept_with_every_field(identity: Identity) -> None:
    assert set(payload("RegisterUser")) == set(pb.Registration.DESCRIPTOR.fields_by_name)
    answer = await identity.register(**payload("RegisterUser"))
    assert (answer.success, answer.created) == (True, True)
    user = await identity.get("42")
    sent = ParseDict(payload("RegisterUser"), pb.Registration())
    assert user.user_id == answer.user_id
    for field in ("wordpress_id", "email", "first_name", "last_name", "registration_date", "preferences", "email_subscriptions"):
        assert getattr(user, field) == getattr(sent, field), field
    assert user.utm_attribution == sent.utm_parameters
    assert (user.user_type, user.lifetime_value, user.currency, user.paid_orders) == ("prospect", 0, "USD", 0)
    assert {"email", "first_name", "last_name", "preferences.language"} <= set(user.written_at)
    assert {each.ToJsonString() for each in user.written_at.values()} == {sent.timestamp.ToJsonString()}
    assert user.created_at == user.updated_at
    links = {(link.kind, link.value): link for link in user.links}
    email = identity.hasher.fingerprint("ada@example.org").hex()
    assert links.keys() == {("wordpress", "42"), ("email", email), ("session", "s-9f8e7d6c"), ("anonymous", "a-1b2c3d4e")}
    assert {link.evidence for link in user.links} == {"registration"}
    assert all(link.leads_here and link.linked_at == sent.timestamp for link in user.links)


async def test_200_registrations_of_one_person_at_once_are_one_user(identity: Identity) -> None:
    both = {"wordpress_id": "7", "email": "Ada@example.org"}
    answers = await asyncio.gather(*(identity.register(**(both if n % 2 else {"email": "ada@Example.org"})) for n in range(200)))
    assert len({answer.user_id for answer in answers}) == 1
    assert sum(answer.created for answer in answers) == 1
    assert (await identity.get("7")).user_id == answers[0].user_id
    await identity.relay()
    assert {change.user.user_id for change in await identity.published() if change.HasField("user")} == {answers[0].user_id}
    assert await identity.users() == 1


async def test_20_persons_registered_by_eight_senders_in_random_order_are_20_persons(identity: Identity) -> None:
    def registrations(number: int) -> list[dict[str, Any]]:
        wordpress, email, session = {"wordpress_id": str(number)}, {"email": f"p{number}@example.org"}, {"session_id": f"s{number}"}
        return [{**(wordpress if number % 2 else email), **session}, {**wordpress, **email, "first_name": f"P{number}"}]

    users = [user for number in range(1, 21) for user in registrations(number)]

    async def sender(seed: int) -> None:
        for user in random.Random(seed).sample(users, len(users)):  # noqa: S311
            await identity.register(**user)

    await asyncio.gather(*(sender(seed) for seed in range(8)))
    people = [await identity.get(str(number)) for number in range(1, 21)]
    assert len({person.user_id for person in people}) == 20
    assert sum(1 + len(person.merged_user_ids) for person in people) == await identity.users()
    for number, person in enumerate(people, 1):
        assert (person.email, person.first_name) == (f"p{number}@example.org", f"P{number}")
        assert (await identity.by_email(person.email)).user_id == person.user_id
        assert await identity.person(f"session:s{number}") == person.user_id


async def test_a_second_registration_brings_up_to_date_field_by_field(identity: Identity) -> None:
    first = await identity.register(wordpress_id="1", first_name="Ada", last_name="L", preferences={"a": 1, "b": 1}, timestamp=at(10))
    second = await identity.register(
        wordpress_id="1", email="ada@example.org", first_name="Augusta", preferences={"b": 2}, timestamp=at(20)
    )
    late = await identity.register(wordpress_id="1", first_name="Nobody", last_name="N", preferences={"a": 0, "c": 0}, timestamp=at(5))
    assert (second.created, late.created) == (False, False)
    assert {first.user_id, second.user_id, late.user_id} == {first.user_id}
    user = await identity.get("1")
    assert (user.first_name, user.last_name, user.email) == ("Augusta", "L", "ada@example.org")
    assert MessageToDict(user.preferences) == {"a": 1, "b": 2, "c": 0}
    assert user.registration_date.ToDatetime(UTC) == NOON + timedelta(seconds=10)


async def test_a_lead_that_registers_with_wordpress_is_the_same_user(identity: Identity) -> None:
    lead = await identity.register(email="ada@example.org", timestamp=at(0))
    registered = await identity.register(wordpress_id="1", email="ADA@example.org", timestamp=at(1))
    assert (registered.user_id, registered.created) == (lead.user_id, False)
    assert (await identity.get("1")).wordpress_id == 1


async def test_a_registration_that_names_two_users_makes_them_one_person(identity: Identity) -> None:
    lead = await identity.register(email="ada@example.org", first_name="Ada", session_id="before", timestamp=at(0))
    account = await identity.register(wordpress_id="1", session_id="after", timestamp=at(1))
    assert lead.user_id != account.user_id
    both = await identity.register(wordpress_id="1", email="ada@example.org", timestamp=at(2))
    again = await identity.register(email="ada@example.org", timestamp=at(3))
    assert (both.user_id, again.user_id, both.created) == (account.user_id, account.user_id, False)
    user = await identity.get(lead.user_id)
    assert (user.user_id, user.wordpress_id, user.email, user.first_name) == (account.user_id, 1, "ada@example.org", "Ada")
    assert list(user.merged_user_ids) == [lead.user_id]
    assert await identity.person("session:before") == await identity.person("session:after") == account.user_id


async def test_an_address_moves_between_wordpress_users_and_never_joins_them(identity: Identity) -> None:
    one = await identity.register(wordpress_id="1", email="shared@example.org", timestamp=at(10))
    other = await identity.register(wordpress_id="2", email="shared@example.org", timestamp=at(20))
    late = await identity.register(wordpress_id="3", email="shared@example.org", timestamp=at(15))
    assert len({one.user_id, other.user_id, late.user_id}) == 3
    assert [(await identity.get(number)).email for number in "123"] == ["", "shared@example.org", ""]
    assert (await identity.by_email("shared@example.org")).user_id == other.user_id
    links = [link.kind for number in "13" for link in (await identity.get(number)).links]
    assert links == ["wordpress", "wordpress"]
    back = await identity.register(wordpress_id="1", email="shared@example.org", timestamp=at(30))
    assert (await identity.by_email("shared@example.org")).user_id == back.user_id == one.user_id


async def test_no_registration_merges_what_an_administrator_has_unmerged(identity: Identity) -> None:
    lead = await identity.register(email="ada@example.org", timestamp=at(0))
    account = await identity.register(wordpress_id="1", timestamp=at(1))
    await identity.register(wordpress_id="1", email="ada@example.org", timestamp=at(2))
    await identity.unmerge("1", lead.user_id)
    await identity.register(wordpress_id="1", email="ada@example.org", timestamp=at(3))
    assert (await identity.by_email("ada@example.org")).user_id == account.user_id
    assert (await identity.get(lead.user_id)).user_id == lead.user_id


async def test_a_session_belongs_to_the_user_it_was_first_seen_with(identity: Identity) -> None:
    """A family's computer: both register, in one session and under one anonymous id, and stay two persons."""
    browser = {"session_id": "s", "anonymous_id": "a"}
    mother = await identity.register(wordpress_id="1", **browser, timestamp=at(10))
    child = await identity.register(wordpress_id="2", **browser, timestamp=at(20))
    assert mother.user_id != child.user_id
    answer = await identity.identify(user_id="2", **browser, timestamp=at(30))
    assert (answer.success, answer.user_id) == (False, child.user_id)
    assert await identity.person("session:s") == await identity.person("anonymous:a") == mother.user_id
    assert {link.kind: link.leads_here for link in (await identity.get("2")).links} == {
        "wordpress": True,
        "session": False,
        "anonymous": False,
    }
    earlier = await identity.identify(user_id="2", session_id="s", timestamp=at(5))
    assert (earlier.success, await identity.person("session:s")) == (True, child.user_id)


async def test_a_session_that_too_many_persons_share_leads_to_none_of_them(identity: Identity) -> None:
    answers = [await identity.identify(user_id=str(number), session_id="library", timestamp=at(number)) for number in range(1, SHARED + 2)]
    assert [answer.success for answer in answers] == [True, *[False] * SHARED]
    assert await identity.person("session:library") == ""
    assert not any(link.leads_here for link in (await identity.get("1")).links if link.kind == "session")


async def test_an_unknown_wordpress_user_is_made_when_it_is_identified(identity: Identity) -> None:
    answer = await identity.identify(user_id="0042", session_id="s", anonymous_id="a")
    assert answer.success
    user = await identity.get("42")
    assert (user.user_id, user.wordpress_id, user.HasField("registration_date")) == (answer.user_id, 42, False)
    registered = await identity.register(wordpress_id="42", email="ada@example.org")
    assert (registered.user_id, registered.created) == (answer.user_id, False)
    assert (await identity.get("42")).HasField("registration_date")
    by_mesh_id = await identity.identify(user_id=answer.user_id, session_id="other")
    assert (by_mesh_id.success, by_mesh_id.user_id) == (True, answer.user_id)


BLOCKED = [
    *("null", "Undefined", "none", "0", "anonymous", "GUEST", "unknown", "test", "NaN", "false", "true", "-", "..."),
    "00000000-0000-0000-0000-000000000000",
]


async def test_a_word_in_place_of_a_missing_id_leads_to_no_person(identity: Identity) -> None:
    for value in BLOCKED:
        assert not (await identity.identify(user_id="1", session_id=value, anonymous_id="a")).success, value
        assert not (await identity.identify(user_id="1", anonymous_id=value)).success, value
        await identity.register(wordpress_id="1", session_id=value)
    await identity.saw(*({"user_id": "1", "session_id": value} for value in BLOCKED))
    await identity.saw(*({"user_id": value, "session_id": "s"} for value in BLOCKED))
    assert not any([await identity.person(f"{kind}:{value}") for kind in ("session", "anonymous") for value in BLOCKED])
    assert {(link.kind, link.value) for link in (await identity.get("1")).links} == {("wordpress", "1"), ("anonymous", "a")}
    assert await identity.users() == 1


async def test_of_two_writers_of_a_field_the_later_wins_whatever_arrives_first(identity: Identity) -> None:
    for number, order in enumerate(permutations(range(3)), 1):
        updates: list[dict[str, Any]] = [
            {"updated_at": at(30), "first_name": "latest", "preferences": {"x": 3, "gone": None}},
            {
                "updated_at": at(20),
                "first_name": "later",
                "email": f"later{number}@example.org",
                "preferences": {"x": 2, "y": 2, "gone": 2},
            },
            {"updated_at": at(10), "last_name": "", "email": f"early{number}@example.org", "preferences": {"z": {"deep": [1]}}},
        ]
        await identity.register(wordpress_id=str(number), first_name="A", last_name="B", timestamp=at(0))
        answers = [await identity.update(str(number), **updates[index]) for index in order]
        user = await identity.get(str(number))
        assert answers[-1] == user
        assert (user.first_name, user.last_name, user.email) == ("latest", "", f"later{number}@example.org")
        assert MessageToDict(user.preferences) == {"x": 3, "y": 2, "z": {"deep": [1]}}


async def test_an_update_changes_every_field_it_states(identity: Identity) -> None:
    await identity.register(**payload("RegisterUser"))
    assert set(payload("UpdateUser")) == set(pb.UserUpdate.DESCRIPTOR.fields_by_name)
    user = await identity.update("42", **payload("UpdateUser"))
    sent = ParseDict(payload("UpdateUser"), pb.UserUpdate())
    assert (user.email, user.first_name, user.last_name, user.last_login) == (sent.email, sent.first_name, sent.last_name, sent.last_login)
    assert MessageToDict(user.preferences) == {"language": "fr", "topics": ["exam", "course"]}
    assert {each.list: each.subscribed for each in user.email_subscriptions} == {"newsletter": True, "offers": True}
    assert (await identity.by_email("ada@example.org")).user_id == user.user_id, "the address before still leads here"


async def test_an_update_to_the_address_of_another_person_is_a_conflict(identity: Identity) -> None:
    await identity.register(wordpress_id="1", email="ada@example.org", timestamp=at(0))
    await identity.register(wordpress_id="2", email="ben@example.org", timestamp=at(0))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await identity.update("2", email="ADA@example.org", updated_at=at(1))
    assert raised.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert "ada" not in (raised.value.details() or "").lower()
    await identity.update("2", email="ada@example.org", first_name="Ben", updated_at=at(-1))
    assert [(await identity.get(number)).email for number in "12"] == ["ada@example.org", "ben@example.org"]
    assert (await identity.get("2")).first_name == "Ben"


async def test_a_merge_is_undone_without_a_trace(identity: Identity) -> None:
    await identity.register(wordpress_id="1", email="ada@example.org", first_name="Ada", session_id="s1", timestamp=at(0))
    lead = await identity.register(
        email="ada@work.example", preferences={"x": 1}, session_id="s2", utm_parameters={"source": "newsletter"}, timestamp=at(5)
    )
    await identity.sold({"number": 1, "user_id": "1"}, {"number": 2, "email": "ada@work.example", "net": "0.10"})
    before = [await identity.get("1"), await identity.get(lead.user_id)]
    assert [(user.user_type, user.lifetime_value, user.paid_orders) for user in before] == [("customer", 199, 1), ("customer", 0.1, 1)]
    merged = await identity.merge("1", lead.user_id, reason="asked for it")
    assert (merged.success, merged.user_id, merged.duplicate) == (True, before[0].user_id, False)
    person = await identity.get(lead.user_id)
    assert (person.user_id, person.lifetime_value, person.paid_orders, person.first_name) == (before[0].user_id, 199.1, 2, "Ada")
    assert (list(person.merged_user_ids), person.utm_attribution.source) == ([lead.user_id], "newsletter")
    assert await identity.person("session:s2") == person.user_id
    assert (await identity.merge("1", lead.user_id)).duplicate
    undone = await identity.unmerge("1", lead.user_id)
    assert (undone.success, undone.user_id, undone.duplicate) == (True, lead.user_id, False)
    assert (await identity.unmerge("1", lead.user_id)).duplicate
    after = [await identity.get("1"), await identity.get(lead.user_id)]
    for user in (*before, *after):
        user.ClearField("updated_at")
    assert after == before


async def test_merges_that_are_not_allowed_are_refused(identity: Identity) -> None:
    one = await identity.register(wordpress_id="1")
    await identity.register(wordpress_id="2")
    lead = await identity.register(email="lead@example.org")

    async def refused(user_id: str, merged: str) -> str:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await identity.merge(user_id, merged)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        return refusal(raised.value)["merged_user_id"]

    assert "same user" in await refused("1", "1")
    assert "same user" in await refused("1", one.user_id)
    assert "different WordPress ids" in await refused("1", "2")
    await identity.merge("1", lead.user_id)
    assert (await identity.merge(lead.user_id, "1")).duplicate, "a circle is no merge"
    assert "different WordPress ids" in await refused("2", lead.user_id)
    for number in range(LARGEST_PERSON - 2):
        extra = await identity.register(email=f"lead{number}@example.org")
        await identity.merge("1", extra.user_id)
    last = await identity.register(email="last@example.org")
    assert f"{LARGEST_PERSON} users" in await refused("1", last.user_id)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await identity.unmerge("1", "2")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_persons_of_several_users_merge_and_unmerge_at_the_same_link(identity: Identity) -> None:
    ids = [(await identity.register(email=f"u{number}@example.org", session_id=f"s{number}")).user_id for number in range(4)]
    await identity.merge(ids[0], ids[1])
    await identity.merge(ids[2], ids[3])
    assert (await identity.merge(ids[1], ids[3])).user_id == ids[0]
    assert {await identity.person(f"session:s{number}") for number in range(4)} == {ids[0]}
    assert sorted((await identity.get(ids[3])).merged_user_ids) == sorted(ids[1:])
    await identity.unmerge(ids[0], ids[2])
    assert [await identity.person(f"session:s{number}") for number in range(4)] == [ids[0], ids[0], ids[2], ids[2]]


async def test_merges_at_once_among_registrations_all_take_effect(identity: Identity) -> None:
    numbers = range(1, 13)
    leads = [(await identity.register(email=f"u{number}@example.org", session_id=f"s{number}")).user_id for number in numbers]
    accounts = [(await identity.register(wordpress_id=str(number))).user_id for number in numbers]
    await asyncio.gather(
        *(identity.merge(str(number), lead) for number, lead in zip(numbers, leads[:6], strict=False)),
        *(identity.register(wordpress_id=str(number), email=f"u{number}@example.org") for number in numbers[6:]),
        *(identity.register(wordpress_id=str(number), session_id=f"t{number}") for number in numbers),
    )
    for number, lead, account in zip(numbers, leads, accounts, strict=True):
        assert await identity.person(f"session:s{number}") == await identity.person(f"session:t{number}") == account
        assert list((await identity.get(lead)).merged_user_ids) == [lead]


async def test_a_lead_is_known_by_its_address_with_the_session_it_came_in(identity: Identity) -> None:
    campaign = {"channel": "CHANNEL_CAMPAIGN", "traffic_source": "newsletter", "traffic_medium": "email", "campaign": "spring"}
    await identity.saw(
        {"session_id": "s", "enrichment": campaign, "scope": "track"},
        {"session_id": "s", "utm_parameters": {"source": "second"}},
        {"session_id": "s", "event_type": "lead_capture", "email": "ada@example.org"},
        {"session_id": "t", "event_type": "newsletter_signup", "email": "Ada@example.org"},
    )
    user = await identity.by_email("ada@example.org")
    assert (user.email.lower(), user.user_type, user.wordpress_id) == ("ada@example.org", "lead", 0)
    assert MessageToDict(user.utm_attribution) == {"source": "newsletter", "medium": "email", "campaign": "spring"}
    assert {(link.value, link.evidence, link.leads_here) for link in user.links if link.kind == "session"} == {
        ("s", "event", True),
        ("t", "event", True),
    }
    assert await identity.users() == 1
    registered = await identity.register(wordpress_id="1", email="ada@example.org", utm_parameters={"source": "late"})
    assert (registered.user_id, registered.created) == (user.user_id, False)
    again = await identity.get("1")
    assert (again.user_type, again.utm_attribution.source) == ("lead", "newsletter")


@pytest.mark.parametrize("user_id", ["0", "null", "no-such-user"])
async def test_a_lead_without_an_existing_user_is_known_by_its_address(identity: Identity, user_id: str) -> None:
    await identity.saw({"session_id": "s", "user_id": user_id, "event_type": "lead_capture", "email": "ada@example.org"})
    lead = await identity.by_email("ada@example.org")
    assert (lead.user_type, await identity.person("session:s"), await identity.users()) == ("lead", lead.user_id, 1)


async def test_a_lead_of_a_known_user_is_that_users(identity: Identity) -> None:
    await identity.saw({"session_id": "s", "user_id": "7", "event_type": "lead_capture", "email": "ada@example.org"})
    assert ((await identity.get("7")).user_type, await identity.users()) == ("lead", 1)
    assert await identity.person(identifier_of(email_hash=identity.hasher.fingerprint("ada@example.org"))) == ""


async def test_what_a_browser_or_a_crawler_states_of_a_person_is_no_evidence(identity: Identity) -> None:
    await identity.saw(
        {"session_id": "s", "event_type": "lead_capture", "email": "ada@example.org", "scope": "track"},
        {"session_id": "s", "user_id": "42", "scope": "track"},
        {"session_id": "s", "user_id": "42", "enrichment": {"is_bot": True}},
        {"session_id": "s", "event_type": "page_view", "email": "ada@example.org"},
        {"session_id": "s", "user_id": "no-such-user"},
        {"session_id": "s", "user_id": "99999999999999999999"},
    )
    assert await identity.users() == 0
    assert await identity.person("session:s") == ""


async def test_events_of_known_users_link_their_sessions_and_report_logins_and_lists(identity: Identity) -> None:
    known = await identity.register(wordpress_id="1", email="ada@example.org", timestamp=at(0))
    await identity.saw(
        {"session_id": "a", "user_id": "1"},
        {"session_id": "b", "user_id": known.user_id, "event_type": "login"},
        {"session_id": "c", "user_id": "7"},
        {"session_id": "a", "user_id": "1", "event_type": "email_subscribe", "metadata": {"list": "offers"}},
        {"session_id": "a", "email": "ada@example.org", "event_type": "email_subscribe"},
        {"session_id": "a", "email": "ada@example.org", "event_type": "email_unsubscribe"},
        {"session_id": "a", "user_id": "1", "event_type": "email_subscribe", "timestamp": at(-50)},
    )
    user = await identity.get("1")
    assert {link.value for link in user.links if link.kind == "session" and link.leads_here} == {"a", "b"}
    assert user.last_login.ToDatetime(UTC) == NOON + timedelta(seconds=1)
    assert {each.list: each.subscribed for each in user.email_subscriptions} == {"newsletter": False, "offers": True}
    placeholder = await identity.get("7")
    assert (await identity.person("session:c"), placeholder.email) == (placeholder.user_id, "")


async def test_a_lead_from_history_gets_its_address_later(identity: Identity) -> None:
    await identity.saw({"session_id": "s", "event_type": "lead_capture", "email": "ada@example.org", "history": True})
    user = await identity.by_email("ada@example.org")
    assert (user.email, user.user_type) == ("", "lead")
    await identity.saw({"session_id": "t", "event_type": "lead_capture", "email": "ada@example.org"})
    assert (await identity.by_email("ada@example.org")).email == "ada@example.org"


async def test_page_views_of_known_sessions_write_and_publish_nothing(identity: Identity) -> None:
    await identity.saw(*({"session_id": f"s{n % 5}", "user_id": str(n % 5 + 1)} for n in range(50)))
    changes = await identity.history()
    await identity.saw(*({"session_id": f"s{n % 5}", "user_id": str(n % 5 + 1), "timestamp": at(100 + n)} for n in range(50)))
    assert await identity.history() == changes
    assert await identity.users() == 5


async def test_lifetime_value_is_exact_in_whatever_order_it_is_reported(identity: Identity) -> None:
    """Orders under each identifier of a person, reported before and after the person is known, refunds among them, and again."""
    orders: list[dict[str, Any]] = [
        {"number": 1, "net": "199.00", "user_id": "1"},
        {"number": 2, "net": "0.10", "email": "ada@example.org", "session_id": "s1"},
        {"number": 3, "net": "0.20", "session_id": "s2"},
        {"number": 4, "net": "0", "user_id": "1", "payment_status": "PAYMENT_STATUS_REFUNDED"},
        {"number": 5, "net": "1000.00", "user_id": "1", "excluded": True},
        {"number": 6, "net": "0", "email": "ada@example.org", "paid": False},
    ]
    random.Random(1).shuffle(orders)  # noqa: S311
    await identity.sold(*orders[:3])
    await identity.register(wordpress_id="1", email="ada@example.org", session_id="s2", timestamp=at(9))
    await identity.sold(*orders[3:])
    assert await identity.person("session:s1") == (await identity.get("1")).user_id
    await identity.relay()

    async def value() -> Decimal:
        users = [change.user for change in await identity.history() if change.HasField("user")]
        return sum((Decimal(user.lifetime_value) for user in users), Decimal(0))

    assert (await value(), (await identity.get("1")).lifetime_value) == (Decimal("199.30"), 199.3)
    before = await identity.history()
    async with identity.database.sessions.begin() as session:
        for topic in identity.consumers:
            await offsets.rewind(session, topic)
    for topic in identity.consumers:
        await identity.follow(topic)
    assert await identity.history() == before
    await identity.sold({"number": 1, "net": "50.00", "user_id": "1", "payment_status": "PAYMENT_STATUS_PARTIALLY_REFUNDED"})
    assert await value() == Decimal("50.30")


async def test_what_was_paid_in_a_currency_without_a_rate_is_in_the_values_by_currency(identity: Identity) -> None:
    await identity.sold(
        {"number": 1, "net": "199.00", "user_id": "1", "currency": "USD", "paid_amount": "199"},
        {"number": 2, "net": "", "user_id": "1", "currency": "EUR", "paid_amount": "120", "refunded_amount": "20.50"},
        {"number": 3, "net": "", "user_id": "1", "currency": "EUR", "paid": False, "paid_amount": "0"},
        {"number": 4, "net": "", "email": "ada@example.org", "currency": "GBP", "paid_amount": "5"},
    )

    async def values(user_id: str) -> tuple[float, dict[str, float]]:
        user = await identity.get(user_id)
        return user.lifetime_value, {each.currency: each.amount for each in user.lifetime_values}

    assert await values("1") == (199, {"EUR": 99.5, "USD": 199})
    before = (await identity.get("1")).updated_at
    refunded = {"number": 2, "net": "", "user_id": "1", "currency": "EUR", "paid_amount": "120", "refunded_amount": "120"}
    await identity.sold(refunded)
    assert await values("1") == (199, {"EUR": 0, "USD": 199})
    assert (await identity.get("1")).updated_at.ToDatetime() > before.ToDatetime(), "the site is sent another value"
    await identity.merge((await identity.get("1")).user_id, (await identity.by_email("ada@example.org")).user_id)
    assert await values("1") == (199, {"EUR": 0, "GBP": 5, "USD": 199})


async def test_time_alone_makes_a_person_inactive_and_whatever_it_does_active(identity: Identity) -> None:
    async def inactive() -> list[bool]:
        return [(await identity.get(user)).inactive for user in "123"]

    await identity.saw({"session_id": "s1", "user_id": "1"}, {"session_id": "s1", "user_id": "1", "timestamp": at(DAY)})
    await identity.sold({"user_id": "2", "sold_at": at(0)})
    await identity.register(wordpress_id="3", registration_date=at(0))
    assert (await identity.get("2")).last_active_at.ToDatetime(UTC) == NOON
    assert (await identity.look(179.9), await inactive()) == (0, [False] * 3)
    assert (await identity.look(180.1), await inactive()) == (3, [True] * 3), "each user once, though two processes look"
    await identity.relay()
    [*_, change] = [change for change in await identity.published() if change.user.wordpress_id == 1]
    assert change.user.inactive
    await identity.saw({"session_id": "s2", "user_id": "1", "timestamp": at(181 * DAY)})
    await identity.sold({"number": 2, "user_id": "2", "sold_at": at(181 * DAY)})
    await identity.saw({"id": "login", "event_type": "login", "user_id": "3", "timestamp": at(181 * DAY)})
    assert (await inactive(), await identity.look(182), await inactive()) == ([False] * 3, 0, [False] * 3)


async def test_a_user_from_before_activity_was_kept_is_looked_at(identity: Identity) -> None:
    await identity.sold({"user_id": "1", "sold_at": at(-400 * DAY)}, {"number": 2, "user_id": "2", "sold_at": at(0)})
    async with identity.database.sessions.begin() as session:
        await session.execute(update(UserRow).values(last_active_at=None))
    assert (await identity.look(0), await identity.look(0)) == (2, 0)
    assert [(await identity.get(user)).inactive for user in "12"] == [True, False]


async def test_payment_makes_a_customer_and_a_membership_a_subscriber_and_refunds_take_neither_back(identity: Identity) -> None:
    async def kind() -> str:
        return (await identity.get("1")).user_type

    await identity.sold({"number": 1, "user_id": "1", "paid": False, "net": "0"})
    assert await kind() == "prospect"
    await identity.sold({"number": 1, "user_id": "1"})
    assert await kind() == "customer"
    await identity.sold({"number": 1, "user_id": "1", "net": "0", "payment_status": "PAYMENT_STATUS_REFUNDED"})
    assert await kind() == "customer"
    await identity.sold({"number": 2, "user_id": "1", "lines": [{"product_type": "course"}, {"product_type": "membership"}]})
    assert await kind() == "subscriber"


async def test_a_guest_who_registers_later_brings_what_was_bought(identity: Identity) -> None:
    await identity.sold({"email": "guest@example.org", "session_id": "s"})
    guest = await identity.by_email("guest@example.org")
    assert (guest.email, guest.user_type, guest.lifetime_value) == ("guest@example.org", "customer", 199)
    assert {link.evidence for link in guest.links} == {"purchase"}
    registered = await identity.register(wordpress_id="5", email="guest@example.org")
    assert (registered.user_id, registered.created) == (guest.user_id, False)
    assert (await identity.get("5")).lifetime_value == 199


async def test_what_was_bought_in_a_session_moves_with_the_session(identity: Identity) -> None:
    async def values() -> list[float]:
        return [(await identity.get(number)).lifetime_value for number in "12"]

    await identity.sold({"number": 1, "session_id": "s"}, {"number": 2, "user_id": "1", "net": "1.00"})
    await identity.identify(user_id="1", session_id="s", timestamp=at(10))
    await identity.identify(user_id="2", session_id="other", timestamp=at(10))
    assert await values() == [200, 0]
    await identity.identify(user_id="2", session_id="s", timestamp=at(5))
    assert await values() == [1, 199]
    await identity.sold({"number": 2, "user_id": "2", "net": "1.00"})
    assert await values() == [0, 200]


async def test_what_was_bought_in_a_shared_session_counts_while_it_leads_to_a_person(identity: Identity) -> None:
    await identity.sold({"session_id": "library"})
    leads = [
        await identity.register(email=f"u{number}@example.org", session_id="library", timestamp=at(number)) for number in range(SHARED)
    ]
    first, *others = [lead.user_id for lead in leads]
    assert (await identity.get(first)).lifetime_value == 199
    extra = (await identity.register(email="extra@example.org", session_id="library", timestamp=at(99))).user_id
    assert (await identity.get(first)).lifetime_value == 0
    await identity.merge(others[0], extra)
    assert (await identity.get(first)).lifetime_value == 199
    await identity.unmerge(others[0], extra)
    assert (await identity.get(first)).lifetime_value == 0


async def test_purchases_of_one_person_from_two_partitions_at_once_all_count(identity: Identity) -> None:
    await identity.register(wordpress_id="1", email="ada@example.org")
    messages = [identity.purchase(number, "1.00", user_id="1") for number in range(40)]
    await identity.put("purchases", *((message.purchase_id, message) for message in messages))
    registering = [identity.register(wordpress_id="1", email="ada@example.org", session_id=f"s{n}") for n in range(20)]
    await asyncio.gather(identity.follow("purchases"), *registering)
    await asyncio.gather(*(identity.consumers["purchases"].step(p, block_ms=1) for p in range(identity.partitions)))
    assert (await identity.get("1")).lifetime_value == 40


async def test_what_is_committed_is_published_once_by_the_next_relay(identity: Identity) -> None:
    """A process dies between commit and publish: its rows are there, and the next relay brings them to the topic, once."""
    await identity.register(wordpress_id="1", email="ada@example.org", session_id="s")
    assert await identity.published() == []
    await identity.relay()
    published = await identity.published()
    await asyncio.gather(identity.relay(), identity.relay())
    assert await identity.published() == published
    assert sorted(change.WhichOneof("change") or "" for change in published) == ["alias", "alias", "alias", "user"]
    assert sorted(str(change) for change in await identity.history()) == sorted(str(change) for change in published)


async def test_history_and_topic_state_the_same(identity: Identity) -> None:
    lead = await identity.register(email="lead@example.org", session_id="s")
    await identity.register(wordpress_id="1")
    await identity.merge("1", lead.user_id)
    await identity.unmerge("1", lead.user_id)
    await identity.sold({"user_id": "1", "session_id": "t"})
    await identity.relay()

    def key(change: IdentityChanged) -> tuple[str, ...]:
        link, merge = change.alias, change.merge
        return change.WhichOneof("change") or "", link.subject + merge.merged_user_id + change.user.user_id, link.user_id

    newest = {key(change): change for change in await identity.published()}
    assert {key(change): change for change in await identity.history()} == newest
    assert newest["merge", lead.user_id, ""].merge.undone


async def test_personal_values_are_sealed_at_rest(identity: Identity, settings: Settings) -> None:
    personal = [b"ada@", b"Ada@", b"Lovelace", b"Augusta", b"guest@", b"lead@"]
    await identity.register(wordpress_id="1", email="Ada@example.org", first_name="Augusta", last_name="Lovelace")
    await identity.update("1", email="ada@work.example", last_name="Lovelace-King", updated_at=datetime.now(UTC).isoformat())
    await identity.sold({"email": "guest@example.org"})
    await identity.saw({"session_id": "s", "event_type": "lead_capture", "email": "lead@example.org"})
    await identity.relay()
    async with identity.database.sessions() as session:
        dialect = session.get_bind().dialect.name
        names = "SELECT name FROM sqlite_master WHERE type = 'table'" if dialect == "sqlite" else "SHOW TABLES"
        tables = (await session.scalars(text(names))).all()
        assert {"users", "identity_links", "outbox", "topic_state"} <= set(tables)
        rows = [row for table in tables for row in await session.execute(text(f"SELECT * FROM {table}"))]  # noqa: S608
    raw = b"\n".join(value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row)
    if dialect == "sqlite":
        file = Path(settings.database("identity").partition("///")[2])
        raw += b"".join(path.read_bytes() for path in file.parent.glob(f"{file.name}*"))
    raw += b"".join(change.SerializeToString() for change in await identity.published())
    assert [value for value in personal if value in raw] == []
    assert (await identity.get("1")).email == "ada@work.example"


Call = Callable[[Identity], Awaitable[Any]]
TOMORROW = (datetime.now(UTC) + timedelta(days=2)).isoformat()
DEEP: dict[str, Any] = {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {}}}}}}}}}
BROKEN: list[tuple[Call, str]] = [
    (lambda it: it.register(), "user"),
    (lambda it: it.register(first_name="Ada"), "user"),
    (lambda it: it.register(email="not an address"), "user.email"),
    (lambda it: it.register(wordpress_id="1", session_id="a b"), "user.session_id"),
    (lambda it: it.register(wordpress_id=str(2**63)), "user.wordpress_id"),
    (lambda it: it.register(wordpress_id="1", first_name="x" * 101), "user.first_name"),
    (lambda it: it.register(wordpress_id="1", timestamp=TOMORROW), "timestamp"),
    (lambda it: it.register(wordpress_id="1", registration_date=TOMORROW), "registration_date"),
    (lambda it: it.register(wordpress_id="1", preferences=DEEP), "preferences"),
    (lambda it: it.register(wordpress_id="1", preferences={"x": "y" * 16_384}), "preferences"),
    (lambda it: it.register(wordpress_id="1", email_subscriptions=[{"list": "a b"}]), "user.email_subscriptions[0].list"),
    (lambda it: it.identify(user_id="1"), ""),
    (lambda it: it.identify(session_id="s"), "user_id"),
    (lambda it: it.identify(user_id="1", session_id="s", timestamp=TOMORROW), "timestamp"),
    (lambda it: it.get(""), "id"),
    (lambda it: it.update("1", first_name="Ada"), "user.updated_at"),
    (lambda it: it.update("1", email="", updated_at=at(0)), "user.email"),
    (lambda it: it.update("1", updated_at=TOMORROW), "updated_at"),
    (lambda it: it.update("1", updated_at=at(0), last_login=TOMORROW), "last_login"),
    (lambda it: it.merge("1", ""), "merged_user_id"),
    (lambda it: it.merge("1", "2", reason="x" * 256), "reason"),
    (lambda it: it.unmerge("", "2"), "id"),
]


async def test_a_broken_rule_names_its_field(identity: Identity) -> None:
    for number, (call, field) in enumerate(BROKEN):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(identity)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT, number
        assert field in refusal(raised.value), (number, refusal(raised.value))
    assert await identity.users() == 0


async def test_preferences_never_grow_beyond_their_bounds(identity: Identity) -> None:
    await identity.register(wordpress_id="1", preferences={"a": "x" * 10_000}, timestamp=at(0))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await identity.update("1", preferences={"b": "x" * 10_000}, updated_at=at(1))
    assert "preferences" in refusal(raised.value)
    assert list((await identity.get("1")).preferences) == ["a"]


async def test_an_unknown_user_is_not_found(identity: Identity) -> None:
    await identity.register(wordpress_id="1")
    calls: list[Call] = [
        lambda it: it.get("2"),
        lambda it: it.get("no-such-user"),
        lambda it: it.get("9" * 255),
        lambda it: it.update("2", updated_at=at(0)),
        lambda it: it.identify(user_id="no-such-user", session_id="s"),
        lambda it: it.identify(user_id="0", session_id="s"),
        lambda it: it.identify(user_id="9" * 255, session_id="s"),
        lambda it: it.merge("1", "2"),
        lambda it: it.merge("2", "1"),
        lambda it: it.unmerge("1", "2"),
    ]
    for number, call in enumerate(calls):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(identity)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND, number
    assert await identity.users() == 1


async def test_a_token_opens_what_its_scope_allows(identity: Identity) -> None:
    calls: list[Call] = [
        *(lambda it, scope=scope: it.register(scope=scope, wordpress_id="1") for scope in ("track", "read")),
        *(lambda it, scope=scope: it.identify(scope=scope, user_id="1", session_id="s") for scope in ("track", "read")),
        *(lambda it, scope=scope: it.get("1", scope=scope) for scope in ("track", "read")),
        *(lambda it, scope=scope: it.update("1", scope=scope, updated_at=at(0)) for scope in ("track", "read")),
        *(lambda it, scope=scope: it.merge("1", "2", scope=scope) for scope in ("track", "site", "read")),
        *(lambda it, scope=scope: it.unmerge("1", "2", scope=scope) for scope in ("track", "site", "read")),
    ]
    for number, call in enumerate(calls):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(identity)
        assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED, number
    assert await identity.users() == 0


async def test_a_user_is_history_as_the_report_that_created_it(identity: Identity) -> None:
    await identity.register(wordpress_id="1", registration_date=at(-90 * DAY), timestamp=at(0), historical=True)
    await identity.register(wordpress_id="2", registration_date=at(0), timestamp=at(0))
    await identity.sold({"number": 1, "email": "buyer@example.org", "historical": True})
    await identity.sold({"number": 2, "user_id": "3"})
    await identity.saw({"event_type": "lead_capture", "email": "lead@example.org", "historical": True})
    # Logins and later reports by imports.
    await identity.register(wordpress_id="1", registration_date=at(-90 * DAY), timestamp=at(DAY))
    await identity.register(wordpress_id="2", registration_date=at(0), timestamp=at(0), historical=True)
    assert await identity.historical() == {"1": True, "2": False, "3": False, "buyer@example.org": True, "lead@example.org": True}


async def test_a_former_guest_who_registers_is_live(identity: Identity) -> None:
    await identity.sold({"email": "guest@example.org", "historical": True})
    await identity.register(wordpress_id="1", email="guest@example.org", registration_date=at(0), timestamp=at(DAY))
    assert await identity.historical() == {"1": False}
