"""Ingestion through a real channel, a real log and each kind of database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import grpc
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from pmp.gdpr.v1.change_pb2 import Choice, ConsentChanged, GdprChanged
from pmp.identity.v1.change_pb2 import AliasChanged, IdentityChanged
from pmp.ingestion.v1 import event_pb2
from pmp.ingestion.v1 import ingestion_pb2 as pb
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub
from pmp.log.v1 import log_pb2
from sqlalchemy import select, text, update

from kit.log import books
from kit.log.consume import dead_letters
from kit.log.consume.consumer import Consumer
from kit.log.intake.account import Account
from kit.log.publish.outbox import Outbox
from kit.log.publish.relay import Relay
from kit.log.redis_log import RedisLog
from kit.log.streams import START, partition_of
from kit.people.keys.seals import EMAIL_CONTEXT
from kit.people.persons import project_identity
from kit.people.privacy import project_consent
from kit.service.resources import Resources
from kit.service.runtime import ServiceRuntime
from kit.settings import Settings
from services.ingestion import rules
from services.ingestion.composition import ROLE
from services.ingestion.losses import Losses
from services.ingestion.messages import RAW_TOPIC, TOPIC
from services.ingestion.models import EventRow, ProcessingRow, ReceiptRow
from services.ingestion.worker import ROLE as WORKER
from tests.databases import newest_database
from tests.roles import serving, settings_for

Event = dict[str, Any]
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.0 Mobile/15E148 Safari/604.1"
)


def event(**fields: Any) -> Event:
    return {"id": "e1", "event_type": "page_view", "timestamp": datetime.now(UTC).isoformat(), "session_id": "s1", **fields}


class Ingestion:
    """The service, and its worker step by step."""

    def __init__(self, api: ServiceRuntime, resources: Resources, channel: grpc.aio.Channel) -> None:
        settings = api.settings
        self.database = api.database
        self.account = api.intake.account
        self.losses = Losses(api.sessions, api.log, RAW_TOPIC, settings.log_partitions)
        self.log = api.log
        self.keys, self.hasher = api.keys, api.keys.hasher
        self.partitions = settings.log_partitions
        self._token = settings.mesh_token.get_secret_value()
        self._stub: Any = IngestionServiceStub(channel)
        self._settings, self._resources = settings, resources
        self.start_worker()

    def start_worker(self, **settings: Any) -> None:
        """Starts another worker, in a shop with these settings."""
        worker = self.worker(site_timezone=ZoneInfo("Europe/Berlin"), **settings)
        self.consumer, self.relay = worker.consumer_of_raw_log(), worker.relay

    def worker(self, **settings: Any) -> ServiceRuntime:
        return WORKER.compose(settings_for(WORKER, self._settings, **settings), self._resources)

    def _metadata(self, scope: str, user: str, address: str = "198.51.100.9") -> tuple[tuple[str, str], ...]:
        return (
            ("x-pmp-mesh-token", self._token),
            ("x-pmp-client", "shop"),
            ("x-pmp-scope", scope),
            ("x-pmp-user", user),
            ("x-pmp-address", address),
        )

    async def track(
        self, fields: Event, *, scope: str = "site", user: str = "", traceparent: str = "", **caller: str
    ) -> pb.TrackEventResponse:
        request = ParseDict({"event": fields}, pb.TrackEventRequest())
        return await self._stub.TrackEvent(request, metadata=(*self._metadata(scope, user, **caller), ("traceparent", traceparent)))

    async def track_all(self, events: Sequence[Event], *, scope: str = "site", user: str = "") -> pb.TrackEventsResponse:
        return await self._stub.TrackEvents(ParseDict({"events": events}, pb.TrackEventsRequest()), metadata=self._metadata(scope, user))

    async def post(self, body: Any, *, strict: bool = False, scope: str = "site", user: str = "") -> pb.TrackEventsResponse:
        """A batch as the gateway passes it on: the JSON as it came."""
        request = pb.TrackEventsRequest(strict=strict)
        request.json_body.data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self._stub.TrackEvents(request, metadata=self._metadata(scope, user))

    async def post_one(self, body: Any, *, strict: bool = False) -> pb.TrackEventResponse:
        """A single event as the gateway passes it on."""
        request = pb.TrackEventRequest(strict=strict)
        request.json_body.data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self._stub.TrackEvent(request, metadata=self._metadata("site", ""))

    async def letters(self) -> list[str]:
        """Why messages were set aside."""
        async with self.database.sessions() as session:
            return [letter.reason for letter in await dead_letters.find(session)]

    async def accounting(self, **fields: Any) -> pb.GetAccountingResponse:
        return await self._stub.GetAccounting(ParseDict(fields, pb.GetAccountingRequest()), metadata=self._metadata("read", ""))

    async def look_for_losses(self) -> pb.GetAccountingResponse:
        """What the report does a few times; answers the books after it."""
        for _ in range(3):
            await self.losses.look(await books.accounts(self.database.sessions, self.log, RAW_TOPIC, self.partitions))
        return await self.accounting()

    async def receipts(self) -> Sequence[ReceiptRow]:
        async with self.database.sessions() as session:
            return (await session.scalars(select(ReceiptRow))).all()

    async def history(self, after: int = 0) -> list[pb.ListEventsResponse]:
        found: list[pb.ListEventsResponse] = []
        for partition in range(self.partitions):
            request = pb.ListEventsRequest(partition=partition, after_position=after)
            found.extend([item async for item in self._stub.ListEvents(request, metadata=(("x-pmp-mesh-token", self._token),))])
        return found

    async def choose(self, identifier: str, seconds: float = 0, *, granted: bool) -> None:
        """A person makes a choice about analytics, which gdpr publishes."""
        choice = Choice(granted=granted)
        choice.decided_at.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
        await self._hear("gdpr", identifier, GdprChanged(consent=ConsentChanged(subject=identifier, analytics_tracking=choice)))

    async def link(self, identifier: str, user: str, *, withdrawn: bool = False) -> None:
        """Identity publishes that an identifier is linked to a user, or not any more."""
        link = AliasChanged(subject=identifier, user_id=user, withdrawn=withdrawn)
        link.linked_at.FromSeconds(1)
        await self._hear("identity", identifier, IdentityChanged(alias=link))

    async def _hear(self, topic: str, key: str, message: Message) -> None:
        """Another service publishes something, and the worker takes it in."""
        record = log_pb2.Record(type=message.DESCRIPTOR.full_name, payload=message.SerializeToString())
        async with self.database.sessions.begin() as session:
            await Outbox(topic).add(session, partition_of(key, self.partitions), [record])
        relay = Relay(self.database.sessions, self.log, topic, keep=timedelta(hours=1))
        consumer = Consumer(self.database.sessions, self.log, topic, project_consent if topic == "gdpr" else project_identity)
        for partition in range(self.partitions):
            while await relay.step(partition):
                pass
            while await consumer.step(partition, block_ms=1):
                pass

    async def drain(self) -> None:
        """Lets the worker process and publish all there is."""
        for partition in range(self.partitions):
            while await self.consumer.step(partition, block_ms=1):
                pass
            while await self.relay.step(partition):
                pass

    async def rows(self) -> Sequence[EventRow]:
        async with self.database.sessions() as session:
            return (await session.scalars(select(EventRow).order_by(EventRow.id))).all()

    async def published(self) -> list[event_pb2.EventStored]:
        entries = [entry for p in range(self.partitions) for entry in await self.log.read(TOPIC, p, START, limit=1000, block_ms=1)]
        records = [record for entry in entries for record in log_pb2.Pack.FromString(entry.pack).records]
        return [event_pb2.EventStored.FromString(record.payload) for record in records]


@pytest.fixture
async def ingestion(settings: Settings, resources: Resources) -> AsyncIterator[Ingestion]:
    async with newest_database(settings, "ingestion"):
        api = ROLE.compose(settings_for(ROLE, settings), resources)
        async with serving(api, [api.intake.appender.run]) as channel:
            yield Ingestion(api, resources, channel)


@pytest.fixture
def account(ingestion: Ingestion) -> Account:
    """What the service writes down of what it appends."""
    return ingestion.account


def refusal(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """The violations of a refused request, by field."""
    metadata = dict(error.trailing_metadata() or ())
    bad = BadRequest()
    assert Status.FromString(metadata["grpc-status-details-bin"]).details[0].Unpack(bad)  # pyright: ignore[reportArgumentType]
    return {violation.field: violation.description for violation in bad.field_violations}


async def test_an_accepted_event_is_stored_with_what_was_found_out_and_published(ingestion: Ingestion) -> None:
    answer = await ingestion.track(
        event(
            user_id="42",
            page_url="https://shop.example/courses/pmp-prep?utm_source=newsletter&utm_medium=email&utm_campaign=spring",
            page_title="PMP",
            referrer="https://www.google.com/",
            user_agent=IPHONE,
            ip_address="203.0.113.77",
            metadata={"currency": "eur", "depth": {"a": [1, "x", None]}},
        )
    )
    assert (answer.success, answer.event_id) == (True, "e1")
    await ingestion.drain()
    [row] = await ingestion.rows()
    assert (row.id, row.user_id, row.session_id, row.event_type, row.platform, row.processed) == (
        "e1",
        "42",
        "s1",
        "page_view",
        "wordpress",
        True,
    )
    assert row.event_data["ip_address"] == "203.0.113.0"
    assert row.event_data["metadata"] == {"currency": "eur", "depth": {"a": [1, "x", None]}}
    [message] = await ingestion.published()
    found = message.enrichment
    assert (found.device, found.os, found.is_bot, found.course, found.currency) == ("mobile", "iOS", False, "pmp-prep", "EUR")
    assert (found.channel, found.traffic_source, found.traffic_medium, found.campaign) == (
        event_pb2.CHANNEL_CAMPAIGN,
        "newsletter",
        "email",
        "spring",
    )
    assert (found.visitor, found.session) == ("42", "s1")


async def test_history_streams_what_the_topic_published(ingestion: Ingestion) -> None:
    for number in range(7):
        await ingestion.track_all(
            [event(id=f"e{number}-{i}", session_id=f"s{i}", metadata={"n": number}, utm_parameters={"source": "x"}) for i in range(5)]
        )
    await ingestion.drain()
    published = {message.event.id: message for message in await ingestion.published()}
    history = await ingestion.history()
    listed = {message.event.id: message for item in history for message in item.events}
    assert len(published) == 35
    assert listed == published
    assert [item.position for item in await ingestion.history(after=1)] == [item.position for item in history if item.position > 1]


async def test_second_delivery_is_a_duplicate(ingestion: Ingestion) -> None:
    first = event()
    await ingestion.track(first)
    await ingestion.drain()
    await asyncio.gather(*(ingestion.track(first) for _ in range(5)))
    await ingestion.track_all([first, first])
    await ingestion.drain()
    assert len(await ingestion.rows()) == 1
    assert len(await ingestion.published()) == 1
    total = (await ingestion.accounting()).total
    assert (total.received, total.stored, total.duplicate) == (8, 1, 7)


async def test_duplicates_of_one_id_in_different_partitions_are_one_event(ingestion: Ingestion) -> None:
    same = event(id="shared")
    await asyncio.gather(*(ingestion.track({**same, "session_id": f"s{number}"}) for number in range(12)))
    await asyncio.gather(
        *(ingestion.consumer.step(partition, block_ms=1) for partition in range(ingestion.partitions)), return_exceptions=True
    )
    await ingestion.drain()
    assert len(await ingestion.rows()) == 1
    total = (await ingestion.accounting()).total
    assert (total.stored, total.dead_lettered, total.pending) == (1, 11, 0)


async def test_another_content_under_a_known_id_is_set_aside(ingestion: Ingestion) -> None:
    await ingestion.track(event(page_title="one"))
    await ingestion.track(event(page_title="two"))
    await ingestion.drain()
    [row] = await ingestion.rows()
    assert row.event_data["page_title"] == "one"
    async with ingestion.database.sessions() as session:
        [letter] = await dead_letters.find(session)
    assert letter.reason == "another event is stored under this id"
    answer = await ingestion.accounting()
    assert (answer.total.received, answer.total.stored, answer.total.dead_lettered, answer.balanced) == (2, 1, 1, True)


async def test_an_event_sent_again_from_another_network_is_a_duplicate(ingestion: Ingestion) -> None:
    sent = event()
    await ingestion.track(sent, scope="track", address="198.51.100.9")
    await ingestion.track(sent, scope="track", address="203.0.113.9")
    await ingestion.drain()
    [row] = await ingestion.rows()
    assert row.event_data["ip_address"] == "198.51.100.0"
    total = (await ingestion.accounting()).total
    assert (total.stored, total.duplicate, total.dead_lettered) == (1, 1, 0)


async def test_another_address_under_a_known_id_is_another_content(ingestion: Ingestion) -> None:
    sent = event()
    for more in ({"email": "ada@example.org"}, {"email": "ADA@example.org"}, {"email": "bob@example.org"}, {}):
        await ingestion.track({**sent, **more})
    await ingestion.drain()
    total = (await ingestion.accounting()).total
    assert (total.stored, total.duplicate, total.dead_lettered) == (1, 1, 2)


async def test_an_event_that_is_too_large_leaves_nothing_to_its_neighbour(ingestion: Ingestion) -> None:
    wide = "https://shop.example/" + "€" * 4000
    large = event(id="b", page_url=wide, referrer=wide, metadata={"text": "x" * 16_000}, email="ada@example.org")
    answer = await ingestion.track_all([event(id="a"), large, event(id="c")])
    assert [result.success for result in answer.results] == [True, False, True]
    assert [violation.description for violation in answer.results[1].violations] == ["the event is larger than 32768 bytes"]
    await ingestion.drain()
    assert [(row.id, row.email_hash) for row in await ingestion.rows()] == [("a", None), ("c", None)]


async def test_an_address_is_sealed_with_its_own_event_alone(ingestion: Ingestion) -> None:
    await ingestion.track_all([event(id="a", email="ada@example.org"), event(id="b"), event(id="c", email="bob@example.org")])
    await ingestion.drain()
    hashes = {row.id: row.email_hash for row in await ingestion.rows()}
    assert hashes == {
        "a": ingestion.hasher.fingerprint("ada@example.org"),
        "b": None,
        "c": ingestion.hasher.fingerprint("bob@example.org"),
    }


async def test_one_person_written_in_two_ways_is_a_duplicate(ingestion: Ingestion) -> None:
    sent = event()
    await ingestion.track({**sent, "user_id": "7"})
    await ingestion.track({**sent, "user_id": "007"})
    await ingestion.drain()
    assert [row.user_id for row in await ingestion.rows()] == ["7"]
    assert (await ingestion.accounting()).total.duplicate == 1


async def test_a_time_finer_than_databases_keep_is_published_as_it_is_stored(ingestion: Ingestion) -> None:
    sent = event(timestamp=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.123456789Z"))
    await ingestion.track(sent)
    await ingestion.track(sent)
    await ingestion.drain()
    [published] = await ingestion.published()
    [history] = await ingestion.history()
    assert published.event.timestamp.nanos == 123_456_000
    assert list(history.events) == [published]
    assert (await ingestion.accounting()).total.duplicate == 1


async def test_ids_differ_by_case(ingestion: Ingestion) -> None:
    await ingestion.track_all([event(id="Abc"), event(id="abc"), event(id="ABC")])
    await ingestion.drain()
    assert sorted(row.id for row in await ingestion.rows()) == ["ABC", "Abc", "abc"]


async def test_an_event_without_id_gets_one_and_is_never_a_duplicate(ingestion: Ingestion) -> None:
    answers = [await ingestion.track(event(id="")) for _ in range(2)]
    await ingestion.drain()
    assert sorted(row.id for row in await ingestion.rows()) == sorted(answer.event_id for answer in answers)
    assert len({answer.event_id for answer in answers}) == 2


async def test_one_bad_event_never_rejects_its_neighbours(ingestion: Ingestion) -> None:
    answer = await ingestion.track_all([event(id="a"), event(id="b", email="nobody"), event(id="c", event_type=""), event(id="d")])
    assert [result.success for result in answer.results] == [True, False, False, True]
    assert [violation.field for result in answer.results for violation in result.violations] == ["email", "event_type"]
    assert (answer.success, answer.accepted, answer.rejected) == (False, 2, 2)
    await ingestion.drain()
    assert [row.id for row in await ingestion.rows()] == ["a", "d"]
    accounting = await ingestion.accounting()
    assert (accounting.total.received, accounting.total.stored, accounting.total.rejected, accounting.balanced) == (4, 2, 2, True)


BROKEN: list[tuple[Event, str, str]] = [
    ({"timestamp": None}, "timestamp", "required"),
    ({"event_type": ""}, "event_type", "required"),
    ({"email": "not an address"}, "email", "email"),
    ({"id": "e1 "}, "id", "pattern"),
    ({"user_id": "a b"}, "user_id", "pattern"),
    ({"ip_address": "300.1.1.1"}, "ip_address", "IP"),
    ({"timestamp": (datetime.now(UTC) + timedelta(days=2)).isoformat()}, "timestamp", "24 hours ahead"),
    ({"timestamp": "2001-01-01T00:00:00Z"}, "timestamp", "retention"),
    ({"page_url": "https://shop.example/" + "x" * 4096}, "page_url", "4096"),
    ({"metadata": {"text": "x" * 16_384}}, "metadata", "16384"),
    ({"metadata": {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {}}}}}}}}}}, "metadata", "8 levels"),
    ({"metadata": {"a": [[[[[[[[]]]]]]]]}}, "metadata", "8 levels"),
]


@pytest.mark.parametrize(("fields", "field", "words"), BROKEN)
async def test_a_broken_rule_names_its_field_and_is_in_the_books(ingestion: Ingestion, fields: Event, field: str, words: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ingestion.track(event(**fields))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in refusal(raised.value)[field]
    answer = await ingestion.accounting()
    assert (answer.total.received, answer.total.rejected, answer.balanced) == (1, 1, True)
    await ingestion.drain()
    assert not await ingestion.rows()


async def test_a_batch_returns_the_verdict_that_each_event_would_get_alone(ingestion: Ingestion) -> None:
    several: Event = {"event_type": "", "email": "nobody", "utm_parameters": {"source": "x" * 256}}
    bad = [event(**fields) for fields in (*(fields for fields, _, _ in BROKEN), several)]
    alone: list[dict[str, str]] = []
    for fields in bad:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await ingestion.track(fields)
        alone.append(refusal(raised.value))
    answer = await ingestion.track_all([event(id="first"), *bad, event(id="last")])
    broken = [{violation.field: violation.description for violation in result.violations} for result in answer.results]
    assert broken == [{}, *alone, {}]
    assert set(alone[-1]) == {"event_type", "email", "utm_parameters.source"}
    assert [result.success for result in answer.results] == [True, *(False for _ in bad), True]


async def test_metadata_of_eight_levels_is_taken(ingestion: Ingestion) -> None:
    await ingestion.track(event(metadata={"a": {"b": {"c": {"d": {"e": {"f": {"g": {}}}}}}}}))


async def test_a_track_token_speaks_for_its_own_user_only(ingestion: Ingestion) -> None:
    await ingestion.track(event(id="own", user_id="42"), scope="track", user="42")
    await ingestion.track(event(id="nobody"), scope="track", user="42")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ingestion.track(event(id="other", user_id="43"), scope="track", user="42")
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
    answer = await ingestion.track_all([event(id="b1"), event(id="b2", user_id="43")], scope="track", user="42")
    assert [result.success for result in answer.results] == [True, False]
    await ingestion.drain()
    assert [row.id for row in await ingestion.rows()] == ["b1", "nobody", "own"]


async def test_personal_fields_are_reduced_before_the_log(ingestion: Ingestion, log: RedisLog) -> None:
    await ingestion.track(
        event(
            email="Ada@Example.org",
            ip_address="2001:db8:1:2:3:4:5:6",
            page_url="https://ada:secret@shop.example/thanks?order=7&billing_email=ada%40example.org&x=ada@example.org#email=ada@example.org",
            referrer="https://shop.example/ada@example.org/account",
        )
    )
    raw = b"".join([entry.pack for p in range(4) for entry in await log.read(RAW_TOPIC, p, START, limit=10, block_ms=1)])
    for personal in (b"ada@", b"Ada@", b"ada%40", b"secret", b"2:3:4"):
        assert personal not in raw
    await ingestion.drain()
    [row] = await ingestion.rows()
    assert row.page_url == "https://shop.example/thanks?order=7&billing_email=redacted&x=redacted#email=redacted"
    assert row.event_data["ip_address"] == "2001:db8:1::"
    assert row.email_hash == ingestion.hasher.fingerprint("ada@example.org")
    [message] = await ingestion.published()
    assert (await ingestion.keys.decryptor([message.sealed_email])).open(message.sealed_email, context=EMAIL_CONTEXT) == "Ada@Example.org"


async def test_the_callers_address_is_the_visitors_only_for_a_browser(ingestion: Ingestion) -> None:
    await ingestion.track(event(id="browser"), scope="track")
    await ingestion.track(event(id="server"))
    await ingestion.drain()
    assert {row.id: row.event_data.get("ip_address") for row in await ingestion.rows()} == {"browser": "198.51.100.0", "server": None}


PERSONAL = event(
    user_id="904217",
    session_id="visit-1",
    email="ada@example.org",
    ip_address="203.0.113.77",
    user_agent=IPHONE,
    page_url="https://shop.example/courses/pmp-prep?gclid=click-7#visit-1",
    referrer="https://www.google.com/search?q=ada",
    page_title="PMP",
    metadata={"order": "1016", "currency": "EUR"},
    global_privacy_control=True,
)


async def test_without_consent_an_event_counts_and_leads_to_nobody(ingestion: Ingestion) -> None:
    await ingestion.choose("wordpress:904217", granted=False)
    await ingestion.track(PERSONAL)
    await ingestion.drain()
    [row] = await ingestion.rows()
    assert (row.user_id, row.session_id, row.email_hash) == (None, None, None)
    assert (row.event_type, row.page_url, row.referrer) == (
        "page_view",
        "https://shop.example/courses/pmp-prep",
        "https://www.google.com/search",
    )
    found = row.event_data["enrichment"]
    assert (found["device"], found["course"], found["currency"], found["traffic_source"]) == ("mobile", "pmp-prep", "EUR", "google")
    [message] = await ingestion.published()
    assert [each for item in await ingestion.history() for each in item.events] == [message]
    everything = message.SerializeToString() + repr(row.event_data).encode()
    fingerprint = ingestion.hasher.fingerprint("ada@example.org")
    for personal in (
        b"904217",
        b"visit-1",
        b"203.0.113",
        b"iPhone",
        b"click-7",
        b"q=ada",
        b"1016",
        fingerprint,
        fingerprint.hex().encode(),
    ):
        assert personal not in everything
    assert (message.sealed_email, message.enrichment.visitor, message.enrichment.session) == (b"", "", "")
    assert (await ingestion.accounting()).total.stored == 1


async def test_a_duplicate_of_an_anonymous_event_is_a_duplicate_whatever_was_chosen_meanwhile(ingestion: Ingestion) -> None:
    await ingestion.choose("wordpress:904217", granted=False)
    await ingestion.track_all([PERSONAL, PERSONAL])
    await ingestion.drain()
    await ingestion.choose("wordpress:904217", 1, granted=True)
    await ingestion.track(PERSONAL)
    await ingestion.track({**PERSONAL, "page_title": "other"})
    await ingestion.drain()
    [row] = await ingestion.rows()
    assert row.user_id is None
    answer = await ingestion.accounting()
    assert (answer.total.stored, answer.total.duplicate, answer.total.dead_lettered, answer.balanced) == (1, 2, 1, True)


async def test_a_shop_may_drop_the_events_of_those_who_denied_and_accounts_for_them(ingestion: Ingestion) -> None:
    ingestion.start_worker(site_consent_denied="drop")
    await ingestion.choose("session:no", granted=False)
    await ingestion.choose("session:yes", granted=True)
    await ingestion.track_all([event(id=f"{choice}-{number}", session_id=choice) for choice in ("yes", "no", "new") for number in range(3)])
    await ingestion.drain()
    assert {row.session_id for row in await ingestion.rows()} == {"yes", "new"}
    assert {message.event.session_id for message in await ingestion.published()} == {"yes", "new"}
    answer = await ingestion.accounting()
    assert (answer.total.received, answer.total.stored, answer.total.suppressed, answer.balanced) == (9, 6, 3, True)
    await ingestion.choose("session:no", 1, granted=True)
    await ingestion.track(event(id="no-0", session_id="no"))
    await ingestion.drain()
    assert len(await ingestion.rows()) == 7


@pytest.mark.parametrize(("unknown", "stored"), [("store", ["s1", "s1"]), ("anonymous", ["s1", None]), ("drop", ["s1"])])
async def test_of_whom_nothing_is_known_is_kept_as_the_shop_says(ingestion: Ingestion, unknown: Any, stored: list[str | None]) -> None:
    ingestion.start_worker(site_consent_unknown=unknown)
    await ingestion.choose("wordpress:1", granted=True)
    await ingestion.track_all([event(id="a-known", user_id="1"), event(id="b-unknown")])
    await ingestion.track(event(id="c-nobody", session_id=""))
    await ingestion.drain()
    rows = await ingestion.rows()
    assert [row.session_id for row in rows] == [*stored, None]
    assert rows[-1].id == "c-nobody", "an event of nobody needs nobody's consent"


async def test_a_sessions_denial_is_the_persons_once_it_is_identified_and_not_any_more_when_that_is_undone(ingestion: Ingestion) -> None:
    await ingestion.choose("user:u1", granted=True)
    await ingestion.choose("session:banner", 1, granted=False)

    async def seen(id_: str) -> str | None:
        await ingestion.track(event(id=id_, user_id="42", session_id="another"))
        await ingestion.drain()
        return next(row.user_id for row in await ingestion.rows() if row.id == id_)

    await ingestion.link("wordpress:42", "u1")
    assert await seen("before") == "42"
    await ingestion.link("session:banner", "u1")
    assert await seen("identified") is None
    await ingestion.link("session:banner", "u1", withdrawn=True)
    assert await seen("undone") == "42"


async def test_a_choice_counts_under_every_name_of_an_event(ingestion: Ingestion) -> None:
    await ingestion.choose("session:s1", granted=False)
    await ingestion.choose("user:bob", granted=False)
    await ingestion.link(f"email:{ingestion.hasher.fingerprint('bob@example.org').hex()}", "bob")
    by_mail = event(id="b", session_id="s2", email="bob@example.org")
    await ingestion.track_all([event(id="a", user_id="7"), by_mail, event(id="c", session_id="s2")])
    await ingestion.drain()
    assert [(row.user_id, row.session_id) for row in await ingestion.rows()] == [(None, None), (None, None), (None, "s2")]


async def test_global_privacy_control_is_stored_and_published(ingestion: Ingestion) -> None:
    await ingestion.track_all([event(id="asked", global_privacy_control=True), event(id="not")])
    await ingestion.drain()
    assert {row.id: row.event_data.get("global_privacy_control") for row in await ingestion.rows()} == {"asked": True, "not": None}
    published = {message.event.id: message for message in await ingestion.published()}
    assert {id_: message.event.global_privacy_control for id_, message in published.items()} == {"asked": True, "not": False}
    assert {message.event.id: message for item in await ingestion.history() for message in item.events} == published


@pytest.mark.parametrize("is_first", [True, False])
async def test_an_event_is_history_as_it_was_first_reported(ingestion: Ingestion, *, is_first: bool) -> None:
    for historical in (is_first, not is_first):
        await ingestion.track(event(historical=historical, timestamp="2026-11-20T10:00:00Z"))
        await ingestion.drain()
    assert [message.event.historical for message in await ingestion.published()] == [is_first]
    assert [message.event.historical for item in await ingestion.history() for message in item.events] == [is_first]
    assert await ingestion.letters() == []


async def test_books_balance_before_and_after_processing(ingestion: Ingestion) -> None:
    await ingestion.track_all([event(id=f"e{number}", session_id=f"s{number}") for number in range(100)])
    before = await ingestion.accounting()
    assert (before.total.received, before.total.pending, before.balanced) == (100, 100, True)
    await ingestion.consumer.step(0, block_ms=1)
    midway = await ingestion.accounting()
    assert midway.balanced
    assert 0 < midway.total.stored < 100
    await ingestion.drain()
    after = await ingestion.accounting()
    assert (after.total.stored, after.total.pending, after.balanced) == (100, 0, True)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert not (await ingestion.accounting(**{"from": tomorrow})).hours
    assert (await ingestion.accounting(to=tomorrow)).total == after.total


async def test_events_that_the_log_lost_are_named_and_heal_when_they_are_sent_again(ingestion: Ingestion, account: Account) -> None:
    await ingestion.track_all([event(id=f"safe-{number}", session_id=f"s{number}") for number in range(20)])
    await ingestion.drain()
    began = datetime.now(UTC)
    for half in (range(5), range(5, 9)):
        await ingestion.track_all([event(id=f"lost-{number}", session_id=f"s{number}") for number in half])
        await ingestion.track(event(id=f"lost-browser-{half[0]}"), scope="track")
        await account.write()
        await ingestion.log.redis.flushall()
    await ingestion.track(event(id="later"))
    await ingestion.drain()
    await account.write()
    books = await ingestion.look_for_losses()
    assert (books.total.received, books.total.stored, books.total.missing, books.balanced) == (32, 21, 11, False)
    named = {(each.client, each.scope): each for each in books.lost}
    assert named.keys() == {("shop", "site"), ("shop", "track")}
    assert sorted(named["shop", "site"].event_ids) == [f"lost-{number}" for number in range(9)]
    assert sorted(named["shop", "track"].event_ids) == ["lost-browser-0", "lost-browser-5"]
    for each in books.lost:
        assert each.count == len(each.event_ids)
        assert began <= getattr(each, "from").ToDatetime(UTC) <= each.to.ToDatetime(UTC) <= datetime.now(UTC)
    assert len(await ingestion.receipts()) == sum(row.lost for row in await ingestion.receipts())

    await ingestion.track_all([event(id=f"lost-{number}", session_id=f"s{number}") for number in range(9)])
    await ingestion.drain()
    await account.write()
    halfway = await ingestion.look_for_losses()
    assert (halfway.total.missing, halfway.total.recovered, halfway.balanced) == (2, 9, False)
    assert [(each.scope, each.count) for each in halfway.lost] == [("track", 2)]
    for number in (0, 5):
        await ingestion.track(event(id=f"lost-browser-{number}"), scope="track")
    await ingestion.drain()
    await account.write()
    healed = await ingestion.look_for_losses()
    assert (healed.total.received, healed.total.stored, healed.total.recovered, healed.total.missing) == (43, 32, 11, 0)
    assert healed.balanced
    assert not healed.lost
    assert await ingestion.receipts() == []


async def test_a_lost_repetition_of_a_stored_event_is_not_to_be_sent_again(ingestion: Ingestion, account: Account) -> None:
    await ingestion.track(event())
    await ingestion.drain()
    await ingestion.track(event())
    await account.write()
    await ingestion.log.redis.flushall()
    books = await ingestion.look_for_losses()
    assert (books.total.received, books.total.stored, books.total.recovered, books.balanced) == (2, 1, 1, True)


async def test_receipts_stay_until_their_events_are_processed(ingestion: Ingestion, account: Account) -> None:
    await ingestion.track_all([event(id=f"e{number}", session_id=f"s{number}") for number in range(20)])
    await account.write()
    await ingestion.look_for_losses()
    assert await ingestion.receipts() != []
    await ingestion.drain()
    await ingestion.look_for_losses()
    assert await ingestion.receipts() == []


async def test_every_delivery_can_be_explained(ingestion: Ingestion) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    await ingestion.track(event())
    await ingestion.track(event(page_title="other"), traceparent=f"00-{trace}-00f067aa0ba902b7-01")
    await ingestion.drain()
    async with ingestion.database.sessions() as session:
        rows = (await session.execute(select(ProcessingRow.outcome, ProcessingRow.trace_id).order_by(ProcessingRow.id))).all()
    assert [(row.outcome, row.trace_id) for row in rows] == [("stored", None), ("dead_lettered", trace)]


async def test_a_retried_dead_letter_is_stored_once_what_stood_in_its_way_is_gone(ingestion: Ingestion) -> None:
    await ingestion.track(event(page_title="wrong"))
    await ingestion.track(event(page_title="right"))
    await ingestion.drain()
    async with ingestion.database.sessions.begin() as session:
        await session.execute(text("UPDATE events SET id = 'e1-wrong' WHERE id = 'e1'"))
        assert await dead_letters.mark(session, dead_letters.RETRYING, None) == 1
    assert sum([await ingestion.consumer.retry(partition) for partition in range(ingestion.partitions)]) == 1
    await ingestion.drain()
    assert {row.id: row.event_data["page_title"] for row in await ingestion.rows()} == {"e1-wrong": "wrong", "e1": "right"}
    assert len(await ingestion.published()) == 2
    answer = await ingestion.accounting()
    assert (answer.total.stored, answer.total.dead_lettered, answer.balanced) == (2, 0, True)


async def test_a_batch_of_none_or_of_too_many_is_refused(ingestion: Ingestion) -> None:
    for events in ([], [event(id=f"e{number}") for number in range(501)]):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await ingestion.track_all(events)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "events" in refusal(raised.value)


async def test_what_is_older_than_it_may_be_kept_is_deleted_and_the_books_still_balance(ingestion: Ingestion) -> None:
    for number in range(3):
        await ingestion.track(event(id=f"e{number}", timestamp=datetime.now(UTC).isoformat()))
    await ingestion.drain()
    retention = ingestion.worker(site_retention=timedelta(days=2), site_log_retention=timedelta(days=1)).retention
    now = datetime.now(UTC)
    gone = [sum((await retention.look(now + timedelta(days=days))).values()) for days in (0, 1.5, 2.5, 3)]
    assert gone == [0, 3, 3, 0], "first what became of the deliveries, then the events"
    assert await ingestion.rows() == []
    accounting = await ingestion.accounting()
    assert (accounting.total.stored, accounting.balanced) == (3, True)


async def test_a_batch_has_a_verdict_for_each_element_by_its_position(ingestion: Ingestion) -> None:
    now = datetime.now(UTC)
    lone = {**event(id="surrogate"), "page_title": "\ud83d"}
    elements: list[Any] = [
        event(id="first"),
        None,
        event(id="local", timestamp=now.replace(tzinfo=None).isoformat()),
        event(id="milliseconds", timestamp=round(now.timestamp() * 1000)),
        event(id=12345),
        event(id="php", metadata=[]),
        lone,
        "text",
        event(id="never", timestamp="yesterday"),
        event(id="port", ip_address="203.0.113.9:51234"),
        event(id="where", ip_address="at a proxy"),
        [],
        event(id="last", eventtype="x"),
    ]
    answer = await ingestion.post({"events": elements, "batchId": 7})
    assert len(answer.results) == len(elements)
    assert [(result.event_id if result.success else "") for result in answer.results] == [
        *("first", "", "local", "milliseconds", "12345", "php", "surrogate", "", "", "port", "where", "", "last"),
    ]
    said = [{violation.field: violation.description for violation in result.violations} for result in answer.results]
    assert said[1] == said[7] == {"": "is not an object"}
    assert "timestamp format" in said[8]["timestamp"]
    assert set(said[11]) == {"timestamp", "event_type"}
    faults = [{fault.field: fault.description for fault in result.faults} for result in answer.results]
    assert faults[2] == {"timestamp": "has no zone: taken for local time in UTC"}
    assert set(faults[6]) == {"page_title"}
    assert faults[10] == {"ip_address": "is not an IP address: left out"}
    assert [*answer.results[-1].ignored_fields] == ["eventtype"]
    assert [*answer.ignored_fields] == ["batchId"]
    await ingestion.drain()
    rows = {row.id: row for row in await ingestion.rows()}
    assert set(rows) == {"first", "local", "milliseconds", "12345", "php", "surrogate", "port", "where", "last"}
    assert (rows["port"].event_data["ip_address"], rows["where"].event_data.get("ip_address")) == ("203.0.113.0", None)
    assert abs(rows["local"].timestamp - now) < timedelta(milliseconds=1)
    total = (await ingestion.accounting()).total
    assert (total.received, total.stored, total.rejected, total.dead_lettered) == (13, 9, 4, 0)


async def test_a_single_event_is_read_as_one_of_a_batch(ingestion: Ingestion) -> None:
    answer = await ingestion.post_one(event(id=7, metadata=[], total=1, ip_address="x"))
    assert (answer.event_id, [*answer.ignored_fields], [fault.field for fault in answer.faults]) == ("7", ["total"], ["ip_address"])
    bodies: list[Any] = [event(timestamp="yesterday"), None, [], b"{", b""]
    for body in bodies:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await ingestion.post_one(body)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await ingestion.accounting()).total.rejected == 4, "of what is no JSON, nobody knows that it was an event"


async def test_who_asks_for_strictness_is_refused_what_would_only_be_reported(ingestion: Ingestion) -> None:
    answer = await ingestion.post({"events": [event(id="a"), event(id="b", total=1), event(id="c", ip_address="x")]}, strict=True)
    assert [[violation.field for violation in result.violations] for result in answer.results] == [[], ["total"], ["ip_address"]]
    for refused in (ingestion.post({"events": [event()], "more": 1}, strict=True), ingestion.post_one(event(total=1), strict=True)):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await refused
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


NO_BATCHES: list[Any] = [{"events": {}}, {"events": None}, {}, [event()], {"events": []}, {"events": [{}] * 501}, None]


@pytest.mark.parametrize("body", NO_BATCHES)
async def test_a_body_without_a_list_of_events_is_refused(ingestion: Ingestion, body: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ingestion.post(body)
    assert [*refusal(raised.value)] == ["events"]


async def test_a_browser_and_a_server_never_take_ids_from_each_other(ingestion: Ingestion) -> None:
    await ingestion.track(event(id="shared", page_title="browser's"), scope="track")
    await ingestion.drain()
    await ingestion.track(event(id="shared", page_title="server's"))
    await ingestion.track(event(id="other", page_title="server's"), scope="admin")
    await ingestion.track(event(id="other", page_title="browser's"), scope="track")
    await ingestion.track(event(id="passed", page_title="x", context={}))
    await ingestion.track(event(id="passed", page_title="server's"))
    for scope in ("track", "site"):
        await ingestion.track(event(id="shared", page_title="another"), scope=scope)
    await ingestion.drain()
    stored = sorted((row.id, row.event_data["page_title"]) for row in await ingestion.rows())
    assert stored == [
        ("other", "browser's"),
        ("other", "server's"),
        ("passed", "server's"),
        ("passed", "x"),
        ("shared", "browser's"),
        ("shared", "server's"),
    ]
    assert await ingestion.letters() == ["another event is stored under this id"] * 2
    published = await ingestion.published()
    assert {message.event.id for message in published} == {"other", "passed", "shared"}
    assert len({message.key for message in published}) == 6
    assert {message.key: message for item in await ingestion.history() for message in item.events} == {
        message.key: message for message in published
    }


async def test_a_track_token_passes_on_nothing(ingestion: Ingestion) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ingestion.track(event(context={"user_id": "7"}), scope="track", user="7")
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_an_id_stored_before_there_were_key_spaces_is_known_in_both(ingestion: Ingestion) -> None:
    await ingestion.track(event())
    await ingestion.drain()
    async with ingestion.database.sessions.begin() as session:
        await session.execute(update(EventRow).values(content_hash=b"sixteen bytes...", scope="track"))
    await ingestion.track(event(page_title="reduced in another way"))
    await ingestion.track(event(), scope="track")
    await ingestion.drain()
    total = (await ingestion.accounting()).total
    assert (total.stored, total.duplicate, total.dead_lettered) == (1, 2, 0)


async def test_a_release_that_reduces_events_in_another_way_still_knows_them(ingestion: Ingestion, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = event(page_url="https://shop.example/?a=1")
    await ingestion.track(sent)
    await ingestion.drain()
    monkeypatch.setattr(rules, "REDUCTION", rules.REDUCTION + 1)
    await ingestion.track({**sent, "page_url": "https://shop.example/"})
    await ingestion.drain()
    assert ((await ingestion.accounting()).total.duplicate, await ingestion.letters()) == (1, [])


CARRIERS: list[tuple[Event, Event]] = [
    ({}, {"user_id": "7"}),
    ({"ip_address": "203.0.113.7"}, {"ip_address": "198.51.100.7", "user_agent": IPHONE}),
    ({"utm_parameters": {"source": "newsletter"}}, {"utm_parameters": {"source": "ads"}, "global_privacy_control": True}),
    ({"user_id": "7"}, {"user_id": "8"}),
    ({"context": {}}, {"context": {"user_id": "7", "ip_address": "203.0.113.7", "user_agent": IPHONE}}),
    ({"context": {"user_id": "7"}}, {"context": {"utm_parameters": {"source": "x"}}}),
    ({"context": {"ga_client_id": "1.2", "fbp": "fb.1.1763633000123.9"}}, {"context": {"ga_client_id": "3.4"}}),
    ({"context": {}}, {"context": {"ga_session_id": "5"}}),
    # A browser's clock is wrong, and the server that forwards its events corrects their times.
    ({"context": {}}, {"context": {"user_id": "7"}, "timestamp": "2026-11-20T10:00:00Z"}),
]


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(("first", "then"), CARRIERS)
async def test_an_event_is_the_same_whichever_sender_repeats_it(ingestion: Ingestion, first: Event, then: Event, *, at_once: bool) -> None:
    sent = event(page_title="PMP", metadata={"a": 1})
    await ingestion.track({**sent, **first})
    if not at_once:
        await ingestion.drain()
    await ingestion.track({**sent, **then})
    await ingestion.track({**sent, **first})
    await ingestion.drain()
    assert await ingestion.letters() == []
    total = (await ingestion.accounting()).total
    assert (total.stored, total.duplicate) == (1, 2)
    [row] = await ingestion.rows()
    said = [{**each, **each.get("context", {})} for each in (first, then)]
    known = {name: value for each in reversed(said) for name, value in each.items()}
    assert row.user_id == known.get("user_id")
    assert row.utm_parameters == known.get("utm_parameters")
    assert row.event_data.get("user_agent") == known.get("user_agent")
    assert row.event_data.get("ip_address") == (known["ip_address"].removesuffix("7") + "0" if "ip_address" in known else None)
    assert row.event_data.get("global_privacy_control") == known.get("global_privacy_control")


async def test_the_ids_of_other_systems_that_a_server_found_become_properties_of_the_event(ingestion: Ingestion) -> None:
    tags = {"ga_client_id": "1.2", "ga_session_id": "5", "fbp": "fb.1.1763633000123.9", "fbc": "fb.1.1763633000123.click"}
    await ingestion.track(event(id="b1", context=tags))
    await ingestion.track(event(id="b2", metadata={"fbc": "its own", "a": 1}, context=tags))
    await ingestion.drain()
    found = {message.event.id: MessageToDict(message.event.metadata) for message in await ingestion.published()}
    assert found == {"b1": tags, "b2": {**tags, "fbc": "its own", "a": 1}}


async def test_a_repetition_that_knows_who_it_was_is_published_again(ingestion: Ingestion) -> None:
    sent = event(context={"ip_address": "203.0.113.7"})
    await ingestion.track(sent)
    await ingestion.drain()
    await ingestion.track({**sent, "context": {"user_id": "7", "user_agent": IPHONE}})
    await ingestion.drain()
    await ingestion.track({**sent, "context": {"user_id": "8"}})
    await ingestion.drain()
    before, after = await ingestion.published()
    assert (before.event.user_id, before.is_update, before.enrichment.visitor) == ("", False, "s1")
    assert (after.event.user_id, after.is_update, after.enrichment.visitor, after.enrichment.device) == ("7", True, "7", "mobile")
    assert (before.key, before.received_at) == (after.key, after.received_at)
    [history] = [message for item in await ingestion.history() for message in item.events]
    after.is_update = False
    assert history == after
    assert (await ingestion.accounting()).balanced


async def test_nothing_is_added_to_an_event_that_is_nobodys(ingestion: Ingestion) -> None:
    sent = event()
    await ingestion.choose("session:s1", granted=False)
    await ingestion.track({**sent, "context": {}})
    await ingestion.drain()
    await ingestion.choose("session:s1", 1, granted=True)
    await ingestion.track({**sent, "context": {"user_id": "7", "user_agent": IPHONE}})
    await ingestion.drain()
    [row] = await ingestion.rows()
    assert (row.user_id, row.session_id, row.event_data.get("user_agent")) == (None, None, None)
    assert ((await ingestion.accounting()).total.duplicate, await ingestion.letters()) == (1, [])


async def test_a_browser_alone_adds_nothing_to_what_a_server_vouches_for(ingestion: Ingestion) -> None:
    sent = event()
    await ingestion.track({**sent, "context": {}})
    await ingestion.drain()
    await ingestion.track({**sent, "user_id": "7"}, scope="track", user="7")
    await ingestion.drain()
    assert [row.user_id for row in await ingestion.rows()] == [None]
    await ingestion.track({**sent, "context": {"user_id": "7"}})
    await ingestion.drain()
    assert [(row.user_id, row.scope) for row in await ingestion.rows()] == [("7", "site")]


async def test_who_denied_is_not_added_to_an_event(ingestion: Ingestion) -> None:
    await ingestion.choose("wordpress:7", granted=False)
    sent = event(context={})
    await ingestion.track(sent)
    await ingestion.track({**sent, "context": {"user_id": "7"}})
    await ingestion.drain()
    await ingestion.track({**sent, "context": {"user_id": "7"}})
    await ingestion.drain()
    assert [row.user_id for row in await ingestion.rows()] == [None]


@pytest.mark.parametrize("nobody", ["0", "null", "undefined", "[object Object]", " ", "00000000-0000-0000-0000-000000000000"])
async def test_an_event_of_nobodys_id_is_an_anonymous_one(ingestion: Ingestion, nobody: str) -> None:
    await ingestion.track(event(id="a", user_id=nobody, session_id=nobody))
    await ingestion.track(event(id="b", user_id=nobody), scope="track", user="42")
    answer = await ingestion.track_all([event(id="c", session_id=nobody, user_id="42")])
    assert answer.success
    await ingestion.drain()
    rows = {row.id: (row.user_id, row.session_id) for row in await ingestion.rows()}
    assert rows == {"a": (None, None), "b": (None, "s1"), "c": ("42", None)}


async def test_no_text_of_an_event_has_an_address_in_it_and_the_id_of_its_visitor_is_a_hash(ingestion: Ingestion) -> None:
    email, twice = "ada.lovelace@example.org", "ada.lovelace%2540example.org"
    utm = dict.fromkeys(("source", "medium", "campaign", "term", "content"), email)
    metadata = {email: email, "deep": [{"x": twice}], "visitor_id": "browser-of-ada", "course_id": email}
    texts = {"page_title": f"Hello {email}", "page_url": f"https://s.example/{twice}", "referrer": f"https://s.example/?name={email}"}
    more = {"source": email, "event_category": twice, "user_agent": f"Bot (+mailto:{email})"}
    sent = event(**texts, **more, utm_parameters=utm, metadata=metadata)
    for _ in range(2):
        await ingestion.track(sent)
        await ingestion.drain()
    [row] = await ingestion.rows()
    kept = repr([getattr(row, column.name) for column in EventRow.__table__.columns])
    assert "lovelace" not in kept
    assert "browser-of-ada" not in kept
    assert row.event_data["metadata"]["visitor_id"].startswith("v-")
    [published_event] = await ingestion.published()
    assert "lovelace" not in str(published_event)
    assert (await ingestion.accounting()).total.duplicate == 1
