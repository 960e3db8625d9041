"""Journeys through a real channel, a real log and each kind of database."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from pmp.identity.v1.change_pb2 import AliasChanged, IdentityChanged, MergeChanged
from pmp.ingestion.v1 import event_pb2
from pmp.journeys.v1 import change_pb2
from pmp.journeys.v1 import journeys_pb2 as pb
from pmp.journeys.v1.journeys_pb2_grpc import JourneysServiceStub, add_JourneysServiceServicer_to_server
from pmp.log.v1 import log_pb2
from pmp.purchases.v1.change_pb2 import PaymentStatus, PurchaseChanged
from sqlalchemy import Select, select, text
from sqlalchemy.dialects import mysql

from kit.database import Database
from kit.interceptors import Boundary
from kit.log import dead_letters, positions
from kit.log.consume import Consumer
from kit.log.redis_log import RedisLog, open_log
from kit.log.streams import START, partition_of
from kit.outbox import Outbox, Relay, StateTopic
from kit.persons import learn, subject_of
from kit.settings import Settings
from kit.vault import Vault
from services.journeys import models
from services.journeys.consumers import follow_events, follow_purchases
from services.journeys.messages import TOPIC
from services.journeys.servicer import JourneysServicer
from tests.conftest import newest_database

PAYLOADS = Path(__file__).parent.parent / "payloads"
NOW = datetime.now(UTC).replace(microsecond=123456)
FOLLOWED = {"events": follow_events, "identity": learn, "purchases": follow_purchases}
CHANNELS = {
    "": event_pb2.CHANNEL_DIRECT,
    "internal": event_pb2.CHANNEL_INTERNAL,
    "google": event_pb2.CHANNEL_SEARCH,
    "newsletter": event_pb2.CHANNEL_CAMPAIGN,
    "facebook": event_pb2.CHANNEL_SOCIAL,
}

Fields = dict[str, Any]


def ago(**units: float) -> datetime:
    return NOW - timedelta(**units)


def touchpoint(**fields: Any) -> Fields:
    return {"id": "t1", "timestamp": NOW.isoformat(), "session_id": "s1", "action": "watch", "touchpoint": "webinar", **fields}


def conversion(**fields: Any) -> Fields:
    return {"id": "c1", "timestamp": NOW.isoformat(), "session_id": "s1", "conversion_type": "lead", **fields}


def event(
    event_id: str, event_type: str, at: datetime, *, session: str = "", user: str = "", source: str = "", url: str = "", bot: bool = False
) -> event_pb2.EventStored:
    """An event as ingestion tells it. `source` is one of `CHANNELS`."""
    stored = event_pb2.EventStored(
        event=event_pb2.Event(id=event_id, event_type=event_type, session_id=session, user_id=user, page_url=url),
        enrichment=event_pb2.Enrichment(
            is_bot=bot,
            channel=CHANNELS[source],
            traffic_source="" if source == "internal" else source,
            traffic_medium="email" if source == "newsletter" else "",
            campaign="spring" if source == "newsletter" else "",
            visitor=user or session or "v-0123",
            session=session or "v-0123",
        ),
        scope="site",
    )
    stored.event.timestamp.FromDatetime(at)
    return stored


def order(purchase_id: str, paid_at: datetime | None, net: str = "199.00", **fields: Any) -> PurchaseChanged:
    """An order as purchases tell it."""
    message = PurchaseChanged(
        purchase_id=purchase_id,
        order_id=purchase_id,
        payment_status=PaymentStatus.PAYMENT_STATUS_COMPLETED if paid_at else PaymentStatus.PAYMENT_STATUS_PENDING,
        currency="USD",
        base_currency="USD",
        base_net_amount=net,
        **{"session_id": "", "user_id": "", **fields},
    )
    message.subject = fields.get("subject") or subject_of(user_id=message.user_id, session_id=message.session_id)
    message.timestamp.FromDatetime(paid_at or NOW)
    if paid_at is not None:
        message.paid_at.FromDatetime(paid_at)
    return message


def alias(subject: str, user: str, at: datetime = NOW, *, withdrawn: bool = False) -> IdentityChanged:
    changed = IdentityChanged(alias=AliasChanged(subject=subject, user_id=user, withdrawn=withdrawn))
    changed.alias.linked_at.FromDatetime(at)
    return changed


def merge(merged: str, into: str, *, undone: bool = False) -> IdentityChanged:
    return IdentityChanged(merge=MergeChanged(user_id=into, merged_user_id=merged, undone=undone))


class Journeys:
    """The service, and the topics it follows, step by step."""

    def __init__(self, settings: Settings, database: Database, log: RedisLog, channel: grpc.aio.Channel) -> None:
        self.database = database
        self.log = log
        self.vault = Vault.from_settings(settings)
        self.partitions = settings.log_partitions
        self._token = settings.mesh_token.get_secret_value()
        self._stub: Any = JourneysServiceStub(channel)
        self.consumers = {topic: Consumer(database.sessions, log, topic, handler) for topic, handler in FOLLOWED.items()}

    def relay(self, topic: str) -> Relay:
        return Relay(self.database.sessions, self.log, topic, keep=timedelta(hours=1))

    async def call(self, method: str, request: Message, *, scope: str = "admin", user: str = "") -> Any:
        metadata = (("x-pmp-mesh-token", self._token), ("x-pmp-client", "shop"), ("x-pmp-scope", scope), ("x-pmp-user", user))
        return await getattr(self._stub, method)(request, metadata=metadata)

    async def touch(self, fields: Fields, **caller: str) -> pb.TrackTouchpointResponse:
        return await self.call("TrackTouchpoint", ParseDict({"touchpoint": fields}, pb.TrackTouchpointRequest()), **caller)

    async def convert(self, fields: Fields, **caller: str) -> pb.TrackConversionResponse:
        return await self.call("TrackConversion", ParseDict({"conversion": fields}, pb.TrackConversionRequest()), **caller)

    async def journey(self, user: str, **fields: Any) -> pb.GetUserJourneyResponse:
        return await self.call("GetUserJourney", pb.GetUserJourneyRequest(id=user, **fields))

    async def attribution(self, **fields: Any) -> pb.GetAttributionResponse:
        return await self.call("GetAttribution", ParseDict(fields, pb.GetAttributionRequest()))

    async def funnel(self, **fields: Any) -> list[tuple[str, int]]:
        answer = await self.call("GetFunnel", ParseDict(fields, pb.GetFunnelRequest()))
        return [(step.step, step.people) for step in answer.steps]

    async def shares(self, **fields: Any) -> dict[str, float]:
        return {share.name: share.amount for share in (await self.attribution(**fields)).shares}

    async def history(self) -> list[change_pb2.JourneyChanged]:
        found: list[change_pb2.JourneyChanged] = []
        for partition in range(self.partitions):
            request = pb.ListJourneyChangesRequest(partition=partition)
            stream = self._stub.ListJourneyChanges(request, metadata=(("x-pmp-mesh-token", self._token),))
            found.extend([change async for answer in stream for change in answer.changes])
        return found

    async def happen(self, *messages: event_pb2.EventStored | PurchaseChanged | IdentityChanged) -> None:
        """Publishes messages on their topics, and lets the service follow."""
        for message in messages:
            async with self.database.sessions.begin() as session:
                if isinstance(message, event_pb2.EventStored):
                    record = log_pb2.Record(type=message.DESCRIPTOR.full_name, payload=message.SerializeToString())
                    key = message.event.user_id or message.event.session_id or message.event.id
                    await Outbox("events").add(session, partition_of(key, self.partitions), [record])
                elif isinstance(message, PurchaseChanged):
                    await StateTopic("purchases", self.partitions).tell(session, [(message.purchase_id, message)])
                else:
                    await StateTopic("identity", self.partitions).tell(session, [(str(message), message)])
        await self.follow()

    async def follow(self) -> None:
        for topic, consumer in self.consumers.items():
            relay = self.relay(topic)
            for partition in range(self.partitions):
                while await relay.step(partition):
                    pass
                while await consumer.step(partition, block_ms=1):
                    pass

    async def replay(self) -> None:
        """Reads all topics again from their beginning."""
        async with self.database.sessions.begin() as session:
            for topic in FOLLOWED:
                await positions.rewind(session, topic)
        self.consumers = {topic: Consumer(self.database.sessions, self.log, topic, handler) for topic, handler in FOLLOWED.items()}
        await self.follow()

    async def published(self) -> list[change_pb2.JourneyChanged]:
        relay = self.relay(TOPIC)
        for partition in range(self.partitions):
            while await relay.step(partition):
                pass
        entries = [entry for p in range(self.partitions) for entry in await self.log.read(TOPIC, p, START, limit=1000, block_ms=1)]
        records = [record for entry in entries for record in log_pb2.Pack.FromString(entry.pack).records]
        return [change_pb2.JourneyChanged.FromString(record.payload) for record in records]

    async def rows(self, table: Any = models.touchpoints) -> list[Mapping[str, Any]]:
        async with self.database.sessions() as session:
            rows = (await session.execute(select(table).order_by(*table.primary_key))).all()
        return [{name: value for name, value in row._mapping.items() if name != "created_at"} for row in rows]


@pytest.fixture
async def journeys(settings: Settings, redis_server: Any) -> AsyncIterator[Journeys]:
    async with newest_database(settings, "journeys") as database, open_log(redis_server.url) as log:
        await log.redis.flushall()
        topic = StateTopic(TOPIC, settings.log_partitions)
        servicer = JourneysServicer(settings, database.sessions, topic, Vault.from_settings(settings))
        server = grpc.aio.server(interceptors=[Boundary(settings.mesh_token.get_secret_value())])
        add_JourneysServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Journeys(settings, database, log, channel)
        await server.stop(0)


def refusal(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """The violations of a refused request, by field."""
    metadata = dict(error.trailing_metadata() or ())
    bad = BadRequest()
    assert Status.FromString(metadata["grpc-status-details-bin"]).details[0].Unpack(bad)  # pyright: ignore[reportArgumentType]
    return {violation.field: violation.description for violation in bad.field_violations}


async def test_a_touchpoint_is_stored_with_every_field_and_published(journeys: Journeys) -> None:
    payload = json.loads((PAYLOADS / "journeys.TrackTouchpoint.json").read_text())
    assert set(payload) == set(pb.Touchpoint.DESCRIPTOR.fields_by_name)
    payload["timestamp"] = NOW.isoformat()
    answer = await journeys.touch(payload)
    assert (answer.success, answer.event_id, answer.duplicate) == (True, payload["id"], False)
    [row] = await journeys.rows()
    assert row.pop("content_hash")
    assert row == {
        **{name: payload[name] for name in ("id", "user_id", "session_id", "stage", "touchpoint", "source", "medium", "campaign")},
        **{name: payload[name] for name in ("page_url", "time_spent", "metadata")},
        "timestamp": NOW,
        "action_taken": "download",
        "value_generated": Decimal("12.5"),
        "subject": "wordpress:42",
        "channel": "campaign",
        "origin": "client",
    }
    [told] = await journeys.published()
    assert (told.touchpoint.subject, told.touchpoint.stage, told.touchpoint.value) == ("wordpress:42", "interest", "12.50")
    assert told.touchpoint.timestamp.ToDatetime(UTC) == NOW
    assert await journeys.history() == [told]


async def test_a_conversion_is_stored_with_every_field_but_the_address_and_published(journeys: Journeys) -> None:
    payload = json.loads((PAYLOADS / "journeys.TrackConversion.json").read_text())
    assert set(payload) == set(pb.Conversion.DESCRIPTOR.fields_by_name)
    payload["timestamp"] = NOW.isoformat()
    answer = await journeys.convert(payload)
    assert (answer.success, answer.event_id, answer.duplicate) == (True, payload["id"], False)
    [row] = await journeys.rows(models.conversions)
    assert row.pop("content_hash")
    assert row == {
        **{name: payload[name] for name in payload if name != "email"},
        "timestamp": NOW,
        "value": Decimal(25),
        "email_hash": journeys.vault.fingerprint("ada@example.org"),
        "subject": "wordpress:42",
    }
    [told] = await journeys.published()
    assert (told.conversion.conversion_type, told.conversion.value, told.conversion.currency) == ("lead", "25.00", "EUR")
    assert told.conversion.metadata["form"] == "lead-magnet"
    assert b"ada@" not in told.SerializeToString()
    assert await journeys.history() == [told]


async def test_a_conversion_of_a_guest_belongs_to_the_address(journeys: Journeys) -> None:
    await journeys.convert(conversion(session_id="s1", email="Ada@Example.org", value=1.005, currency="jpy"))
    [row] = await journeys.rows(models.conversions)
    assert row["subject"] == f"email:{journeys.vault.fingerprint('ada@example.org').hex()}"
    assert (row["value"], row["currency"]) == (Decimal(1), "JPY")


async def test_what_is_told_twice_is_recorded_once(journeys: Journeys) -> None:
    for call, fields in (
        (journeys.touch, touchpoint(value=3, metadata={"b": 1, "a": [2]})),
        (journeys.convert, conversion(email="a@b.example")),
    ):
        answers = await asyncio.gather(*(call(fields) for _ in range(100)))
        assert sorted(answer.duplicate for answer in answers) == [False] + [True] * 99
        assert {answer.event_id for answer in answers} == {fields["id"]}
    assert [len(await journeys.rows(table)) for table in (models.touchpoints, models.conversions)] == [1, 1]
    assert len(await journeys.published()) == 2


async def test_another_content_under_a_known_id_is_a_conflict(journeys: Journeys) -> None:
    await journeys.touch(touchpoint())
    await journeys.convert(conversion())
    await journeys.happen(event("e1", "page_view", NOW, session="s1"))
    for call, fields in (
        (journeys.touch, touchpoint(action="other")),
        (journeys.touch, touchpoint(id="e1")),
        (journeys.convert, conversion(value=1)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(fields)
        assert raised.value.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_without_an_id_each_call_is_another_touchpoint(journeys: Journeys) -> None:
    answers = [await journeys.touch(touchpoint(id="")) for _ in range(2)]
    assert [row["id"] for row in await journeys.rows()] == sorted(answer.event_id for answer in answers)


async def test_a_touchpoint_without_a_stage_gets_the_one_its_action_shows(journeys: Journeys) -> None:
    await journeys.touch(touchpoint(id="a", action="add_to_cart"))
    await journeys.touch(touchpoint(id="b", action="watch", page_url="https://shop.example/pricing?email=ada@example.org"))
    assert [(row["stage"], row["page_url"]) for row in await journeys.rows()] == [
        ("intent", None),
        ("consideration", "https://shop.example/pricing?email=redacted"),
    ]


async def test_a_track_token_speaks_for_its_own_user_only(journeys: Journeys) -> None:
    await journeys.touch(touchpoint(id="own", user_id="42"), scope="track", user="42")
    await journeys.touch(touchpoint(id="nobody"), scope="track", user="42")
    for fields, code in ((touchpoint(id="other", user_id="43"), grpc.StatusCode.PERMISSION_DENIED),):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await journeys.touch(fields, scope="track", user="42")
        assert raised.value.code() is code
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await journeys.convert(conversion(), scope="track", user="42")
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert [(row["id"], row["subject"]) for row in await journeys.rows()] == [("nobody", "session:s1"), ("own", "wordpress:42")]


DEEP = {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {}}}}}}}}}
LATE = (NOW + timedelta(days=2)).isoformat()
BROKEN: list[tuple[str, Fields, str, str]] = [
    ("TrackTouchpoint", {"touchpoint": touchpoint(session_id="")}, "touchpoint", "user_id or session_id"),
    ("TrackTouchpoint", {"touchpoint": touchpoint(timestamp=None)}, "touchpoint.timestamp", "required"),
    ("TrackTouchpoint", {"touchpoint": touchpoint(timestamp=LATE)}, "touchpoint.timestamp", "24 hours ahead"),
    ("TrackTouchpoint", {"touchpoint": touchpoint(timestamp="2001-01-01T00:00:00Z")}, "touchpoint.timestamp", "retention"),
    ("TrackTouchpoint", {"touchpoint": touchpoint(stage="bought")}, "touchpoint.stage", "in list"),
    ("TrackTouchpoint", {"touchpoint": touchpoint(action="")}, "touchpoint.action", "required"),
    ("TrackTouchpoint", {"touchpoint": touchpoint(id="purchase/1")}, "touchpoint.id", "pattern"),
    ("TrackTouchpoint", {"touchpoint": touchpoint(value=1e15)}, "touchpoint.value", "999999999999"),
    ("TrackTouchpoint", {"touchpoint": touchpoint(metadata=DEEP)}, "touchpoint.metadata", "8 levels"),
    ("TrackTouchpoint", {}, "touchpoint", "required"),
    ("TrackConversion", {"conversion": conversion(session_id="")}, "conversion", "user_id, email or session_id"),
    ("TrackConversion", {"conversion": conversion(conversion_type="a b")}, "conversion.conversion_type", "pattern"),
    ("TrackConversion", {"conversion": conversion(currency="XXZ")}, "conversion.currency", "ISO 4217"),
    ("TrackConversion", {"conversion": conversion(email="nobody")}, "conversion.email", "email"),
    ("TrackConversion", {"conversion": conversion(timestamp=LATE)}, "conversion.timestamp", "24 hours ahead"),
    ("TrackConversion", {"conversion": conversion(metadata=DEEP)}, "conversion.metadata", "8 levels"),
    ("GetUserJourney", {"id": "a b"}, "id", "pattern"),
    ("GetUserJourney", {"id": "42", "page_size": 1001}, "page_size", "1000"),
    ("GetUserJourney", {"id": "42", "page_token": "none of ours"}, "page_token", "next_page_token"),
    ("GetAttribution", {"model": "magic"}, "model", "in list"),
    ("GetAttribution", {"group_by": "moon"}, "group_by", "in list"),
    ("GetAttribution", {"from": NOW.isoformat(), "to": NOW.isoformat()}, "to", "after from"),
    ("GetFunnel", {"steps": []}, "steps", "at least 1"),
    ("GetFunnel", {"steps": ["home,,purchase"]}, "steps", "empty step"),
    ("GetFunnel", {"steps": [",".join(f"s{number}" for number in range(21))]}, "steps", "20 steps"),
    ("GetFunnel", {"steps": ["x" * 101]}, "steps", "100 characters"),
    ("GetFunnel", {"steps": ["a"], "window": "-1s"}, "window", "longer than 0"),
    ("GetFunnel", {"steps": ["a"], "from": NOW.isoformat(), "to": ago(days=1).isoformat()}, "to", "after from"),
]


@pytest.mark.parametrize(("method", "fields", "field", "words"), BROKEN)
async def test_a_broken_rule_names_its_field(journeys: Journeys, method: str, fields: Fields, field: str, words: str) -> None:
    requests = {name: rpc.input_type for name, rpc in pb.DESCRIPTOR.services_by_name["JourneysService"].methods_by_name.items()}
    request = ParseDict(fields, getattr(pb, requests[method].name)())
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await journeys.call(method, request)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in refusal(raised.value)[field]
    assert not await journeys.rows()
