"""Journeys through a real channel, a real log and each kind of database."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
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
from pmp.journeys.v1.journeys_pb2_grpc import JourneysServiceStub
from pmp.log.v1 import log_pb2
from pmp.purchases.v1.change_pb2 import PaymentStatus, PurchaseChanged
from sqlalchemy import delete, insert, select, union, update
from sqlalchemy.event import listen, listens_for, remove
from sqlalchemy.ext.asyncio import create_async_engine

from kit.database.engine import Database
from kit.database.transactions import Sessions, upsert
from kit.idempotency import id_of, key_of
from kit.log.consume import dead_letters
from kit.log.publish.state_topic import StateTopic
from kit.log.streams import START
from kit.people.hashing import KeyedHasher
from kit.people.identifiers import identifier_of
from kit.people.persons import persons
from kit.people.subjects.retention import Retention, expiries
from kit.service.resources import Resources
from kit.service.runtime import ServiceRuntime
from kit.settings import Settings, WrongSetting
from services.journeys import models
from services.journeys.attribution_store import AttributionStore, splitter_of
from services.journeys.composition import ROLE
from services.journeys.messages import TOPIC, event_row, order_row, session_facts
from services.journeys.personal import personal_tables
from services.journeys.projection import mark_expired
from services.journeys.repository import Orders, Touchpoints, mark_pending
from tests.databases import newest_database
from tests.roles import serving
from tests.topics import Topics

PAYLOADS = Path(__file__).parent.parent / "payloads"
NOW = datetime.now(UTC).replace(microsecond=123456)
HASHER = KeyedHasher(bytes(32))
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
    """An event as ingestion publishes it. `source` is one of `CHANNELS`."""
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
    """An order as purchases publishes it."""
    message = PurchaseChanged(
        purchase_id=purchase_id,
        order_id=purchase_id,
        payment_status=PaymentStatus.PAYMENT_STATUS_COMPLETED if paid_at else PaymentStatus.PAYMENT_STATUS_PENDING,
        currency="USD",
        base_currency="USD",
        base_net_amount=net,
        **fields,
    )
    message.subject = fields.get("subject") or identifier_of(user_id=message.user_id, session_id=message.session_id)
    message.timestamp.FromDatetime(paid_at or NOW)
    if paid_at is not None:
        message.paid_at.FromDatetime(paid_at)
    return message


def link(identifier: str, user: str, at: datetime = NOW, *, withdrawn: bool = False) -> IdentityChanged:
    changed = IdentityChanged(alias=AliasChanged(subject=identifier, user_id=user, withdrawn=withdrawn))
    changed.alias.linked_at.FromDatetime(at)
    return changed


def merge(merged: str, into: str, *, undone: bool = False) -> IdentityChanged:
    return IdentityChanged(merge=MergeChanged(user_id=into, merged_user_id=merged, undone=undone))


class Journeys(Topics):
    """The service, and the topics it follows, step by step."""

    def __init__(self, runtime: ServiceRuntime, channel: grpc.aio.Channel) -> None:
        super().__init__(runtime)
        settings = runtime.settings
        self.database = runtime.database
        self.store = AttributionStore(runtime.sessions, splitter_of(settings, runtime.keys.hasher))
        self.log = runtime.log
        self.hasher = runtime.keys.hasher
        self._token = settings.mesh_token.get_secret_value()
        self._stub: Any = JourneysServiceStub(channel)

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
        """A report on all that has happened."""
        await self.store.refresh()
        answer = await self.call("GetAttribution", ParseDict(fields, pb.GetAttributionRequest()))
        assert answer.pending_changes == 0
        return answer

    async def paths(self) -> Any:
        """All paths and totals as they are kept."""
        async with self.database.sessions() as session:
            paths = (await session.execute(select(models.paths).order_by(*models.paths.primary_key))).all()
            rows = await session.execute(select(models.totals).where(models.totals.c.model != ""))
            totals = {(row.model, row.group_by, row.day): json.loads(row.payload) for row in rows}
        shares = {key: sorted((name, Decimal(amount), parts) for name, amount, parts in each["shares"]) for key, each in totals.items()}
        figures = {
            key: (each["orders"], each["unrated"], Decimal(each["net"]), shares[key], sorted(each["steps"])) for key, each in totals.items()
        }
        return paths, {key: each for key, each in figures.items() if any(each)}

    async def paths_anew(self) -> Any:
        """The same, rebuilt from sessions, orders and persons alone."""
        async with self.database.sessions.begin() as session:
            for table in (models.paths, models.totals, models.pending):
                await session.execute(delete(table))
            identifiers = union(select(models.sessions.c.subject), select(models.orders.c.subject))
            await mark_pending(session, set(await session.scalars(identifiers)))
        await self.store.refresh()
        return await self.paths()

    async def funnel(self, **fields: Any) -> list[tuple[str, int]]:
        answer = await self.call("GetFunnel", ParseDict(fields, pb.GetFunnelRequest()))
        return [(step.step, step.people) for step in answer.steps]

    async def shares(self, **fields: Any) -> dict[str, float]:
        return {share.name: share.amount for share in (await self.attribution(**fields)).shares}

    async def history(self, scope: str = "") -> list[change_pb2.JourneyChanged]:
        """What the internal rpc streams, to the mesh itself or to a caller with a scope."""
        found: list[change_pb2.JourneyChanged] = []
        metadata = (("x-pmp-mesh-token", self._token), *([("x-pmp-scope", scope)] if scope else []))
        for partition in range(self.partitions):
            stream = self._stub.ListJourneyChanges(pb.ListJourneyChangesRequest(partition=partition), metadata=metadata)
            found.extend([change async for answer in stream for change in answer.changes])
        return found

    async def published(self) -> list[change_pb2.JourneyChanged]:
        relay = self.relay(TOPIC)
        for partition in range(self.partitions):
            while await relay.step(partition):
                pass
        entries = [entry for p in range(self.partitions) for entry in await self.log.read(TOPIC, p, START, limit=1000, block_ms=0)]
        records = [record for entry in entries for record in log_pb2.Pack.FromString(entry.pack).records]
        return [change_pb2.JourneyChanged.FromString(record.payload) for record in records]

    async def rows(self, table: Any = models.touchpoints) -> list[Fields]:
        async with self.database.sessions() as session:
            rows = (await session.execute(select(table).order_by(*table.primary_key))).mappings().all()
        return [{name: id_of(value) if name == "id" else value for name, value in row.items() if name != "created_at"} for row in rows]


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """With what a test sets beside."""
    return settings.model_copy(update=getattr(request, "param", {}))


@pytest.fixture
async def journeys(settings: Settings, resources: Resources) -> AsyncIterator[Journeys]:
    async with newest_database(settings, "journeys"):
        runtime = ROLE.compose(settings, resources)
        async with serving(runtime) as channel:
            journeys = Journeys(runtime, channel)
            yield journeys
            await journeys.store.refresh()
            # Whatever a test did: what follows from it step by step is what follows from where it came out.
            assert await journeys.paths() == await journeys.paths_anew()


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
    [change] = await journeys.published()
    assert (change.touchpoint.subject, change.touchpoint.stage, change.touchpoint.value) == ("wordpress:42", "interest", "12.50")
    assert change.touchpoint.timestamp.ToDatetime(UTC) == NOW
    assert await journeys.history() == [change]


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
        "email_hash": journeys.hasher.fingerprint("ada@example.org"),
        "subject": "wordpress:42",
    }
    [change] = await journeys.published()
    assert (change.conversion.conversion_type, change.conversion.value, change.conversion.currency) == ("lead", "25.00", "EUR")
    assert change.conversion.metadata["form"] == "lead-magnet"
    assert b"ada@" not in change.SerializeToString()
    assert await journeys.history() == [change]


async def test_a_conversion_of_a_guest_belongs_to_the_address(journeys: Journeys) -> None:
    await journeys.convert(conversion(session_id="s1", email="Ada@Example.org", value=1.005, currency="jpy"))
    [row] = await journeys.rows(models.conversions)
    assert row["subject"] == f"email:{journeys.hasher.fingerprint('ada@example.org').hex()}"
    assert (row["value"], row["currency"]) == (Decimal(1), "JPY")


async def test_what_is_reported_twice_is_recorded_once(journeys: Journeys) -> None:
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
    for call, fields in (
        (journeys.touch, touchpoint(action="other")),
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
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await journeys.touch(touchpoint(id="other", user_id="43"), scope="track", user="42")
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await journeys.convert(conversion(), scope="track", user="42")
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert [(row["id"], row["subject"]) for row in await journeys.rows()] == [("nobody", "session:s1"), ("own", "wordpress:42")]


DEEP: Fields = {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {}}}}}}}}}
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


async def test_a_broken_rule_names_its_field(journeys: Journeys) -> None:
    requests = {name: rpc.input_type for name, rpc in pb.DESCRIPTOR.services_by_name["JourneysService"].methods_by_name.items()}
    for method, fields, field, words in BROKEN:
        request = ParseDict(fields, getattr(pb, requests[method].name)())
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await journeys.call(method, request)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT, (method, fields)
        assert words in refusal(raised.value)[field]
    assert not await journeys.rows()
    assert not await journeys.rows(models.conversions)


async def test_what_is_committed_is_published_once_by_the_next_relay(journeys: Journeys) -> None:
    await journeys.touch(touchpoint())
    await journeys.convert(conversion())
    assert not [entry for p in range(4) for entry in await journeys.log.read(TOPIC, p, START, limit=9, block_ms=0)]
    assert len(await journeys.published()) == 2
    assert len(await journeys.published()) == 2


BRIEF = [
    event("e1", "page_view", ago(days=9), session="s1", source="google", url="https://shop.example/"),
    event("e2", "lead_capture", ago(days=9, minutes=-2), session="s1", source="internal"),
    event("e3", "page_view", ago(days=8), session="s2", source="newsletter", url="https://shop.example/pricing/"),
    event("e4", "user_registration", ago(days=8, minutes=-5), session="s2", user="42", source="internal"),
    event("e5", "add_to_cart", ago(days=7), session="s3", user="42", source="internal"),
    event("e6", "page_view", ago(days=7, minutes=-9), session="s3", user="42", source="internal", url="https://shop.example/thank-you"),
]
KNOWN = [link("session:s1", "u-1", ago(days=8)), link("session:s2", "u-1", ago(days=8)), link("wordpress:42", "u-1", ago(days=8))]


async def test_the_journey_of_a_buyer_begins_before_anybody_knew_who_it_was(journeys: Journeys) -> None:
    await journeys.happen(*BRIEF, *KNOWN, order("p1", ago(days=7, minutes=-8), user_id="42", session_id="s3"))
    answer = await journeys.journey("42")
    assert list(answer.stages) == ["awareness", "interest", "consideration", "intent", "purchase"]
    assert [point.id for point in answer.touchpoints] == ["e1", "e2", "e3", "e4", "e5", "purchase/p1", "e6"]
    assert (answer.user_id, answer.touchpoint_count, answer.next_page_token) == ("u-1", 7, "")
    assert (answer.first_touch.id, answer.first_touch.source, answer.last_touch.id) == ("e1", "google", "e6")
    assert [(each.session_id, each.source, each.touchpoints) for each in answer.sessions] == [
        ("s1", "google", 2),
        ("s2", "newsletter", 2),
        ("s3", "(direct)", 3),
    ]
    assert answer.sessions[1].campaign == "spring"
    assert answer.time_to_convert.ToTimedelta() == timedelta(days=2, minutes=8)
    assert [reached.reached_at.ToDatetime(UTC) for reached in answer.reached][:2] == [ago(days=9), ago(days=9, minutes=-2)]
    assert answer == await journeys.journey("u-1")


async def test_sessions_join_a_journey_once_identified_and_leave_it_when_that_is_undone(journeys: Journeys) -> None:
    await journeys.happen(*BRIEF, order("p1", ago(days=7, minutes=-8), "198.00", user_id="42", session_id="s3"))
    alone = await journeys.journey("42")
    assert (alone.user_id, [point.id for point in alone.touchpoints]) == ("42", ["e4", "e5", "purchase/p1", "e6"])
    await journeys.happen(KNOWN[2], KNOWN[1])
    assert [point.id for point in (await journeys.journey("42")).touchpoints] == ["e3", "e4", "e5", "purchase/p1", "e6"]
    await journeys.happen(link("session:s1", "u-2"))
    before = [await journeys.journey(user) for user in ("u-1", "u-2")], await journeys.shares(model="linear")
    assert before[1] == {"newsletter": 99, "(direct)": 99}
    await journeys.happen(merge("u-2", "u-1"))
    merged = await journeys.journey("u-2")
    assert (merged.user_id, merged.touchpoint_count) == ("u-1", 7)
    assert await journeys.shares(model="linear") == {"google": 66, "newsletter": 66, "(direct)": 66}
    await journeys.happen(merge("u-2", "u-1", undone=True))
    assert ([await journeys.journey(user) for user in ("u-1", "u-2")], await journeys.shares(model="linear")) == before
    await journeys.happen(link("session:s2", "u-1", withdrawn=True))
    assert [point.id for point in (await journeys.journey("42")).touchpoints] == ["e4", "e5", "purchase/p1", "e6"]


async def test_nobody_has_no_journey(journeys: Journeys) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await journeys.journey("nobody")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    await journeys.happen(link("wordpress:7", "u-7"))
    answer = await journeys.journey("7")
    assert (answer.user_id, answer.touchpoint_count, list(answer.stages)) == ("u-7", 0, [])
    assert not answer.HasField("first_touch")


async def test_pages_of_a_journey_hold_each_touchpoint_once_also_at_one_instant(journeys: Journeys) -> None:
    same = [event(f"e{number:02}", "page_view", ago(hours=number // 7), session=f"s{number % 3}") for number in range(20)]
    await journeys.happen(*same, *(link(f"session:s{number}", "u-1") for number in range(3)), order("p1", ago(hours=1), user_id="u-1"))
    whole = await journeys.journey("u-1")
    found: list[str] = []
    token = ""
    while True:
        answer = await journeys.journey("u-1", page_size=4, page_token=token)
        assert (answer.stages, answer.sessions, answer.first_touch) == (whole.stages, whole.sessions, whole.first_touch)
        found += [point.id for point in answer.touchpoints]
        token = answer.next_page_token
        if not token:
            break
    assert found == [point.id for point in whole.touchpoints]
    assert len(set(found)) == whole.touchpoint_count == 21


async def test_who_buys_again_is_retained(journeys: Journeys) -> None:
    await journeys.happen(order("p2", ago(days=1), user_id="1"), order("p1", ago(days=3), "50.00", user_id="1"))
    answer = await journeys.journey("1")
    assert [(point.id, point.stage, point.value) for point in answer.touchpoints] == [
        ("purchase/p1", "purchase", 50),
        ("purchase/p2", "retention", 199),
    ]
    assert list(answer.stages) == ["purchase", "retention"]
    assert answer.reached[1].reached_at.ToDatetime(UTC) == ago(days=1)


async def test_only_a_paid_order_is_a_purchase(journeys: Journeys) -> None:
    await journeys.happen(
        event("e1", "purchase", ago(days=2), session="s1", user="1"),
        order("p1", None, user_id="1"),
        order("test", ago(days=1), user_id="1", excluded=True),
    )
    assert list((await journeys.journey("1")).stages) == ["intent"]
    await journeys.happen(order("p1", ago(days=1), user_id="1"))
    assert list((await journeys.journey("1")).stages) == ["intent", "purchase"]
    await journeys.happen(order("p1", ago(days=1), "99.50", user_id="1"))
    assert (await journeys.journey("1")).last_touch.value == 99.5
    await journeys.happen(order("p1", None, user_id="1"))
    assert list((await journeys.journey("1")).stages) == ["intent"]
    assert (await journeys.attribution()).orders == 0


VISITS = [
    event("v1", "page_view", ago(days=40), session="s1", source="facebook"),
    event("v2", "page_view", ago(days=30), session="s2", source="newsletter"),
    event("v3", "page_view", ago(days=20), session="s3", source="google"),
    event("v4", "page_view", ago(days=10), session="s4"),
    event("v5", "page_view", ago(days=9), session="s5", source="internal"),
]
OWNED = [link(f"session:s{number}", "u-1") for number in range(1, 6)]
MODELS = {
    "first_touch": {"facebook": 150},
    "last_touch": {"(direct)": 150},
    "last_non_direct": {"google": 150},
    "linear": {"facebook": 30, "newsletter": 30, "google": 30, "(direct)": 60},
    "position_based": {"facebook": 60, "newsletter": 10, "google": 10, "(direct)": 70},
    "markov": {"facebook": 37.5, "newsletter": 37.5, "google": 37.5, "(direct)": 37.5},
}


async def test_each_model_gives_the_sources_their_shares(journeys: Journeys) -> None:
    await journeys.happen(*VISITS, *OWNED, order("p1", ago(days=8), "150.00", user_id="u-1"))
    for model, shares in MODELS.items():
        assert await journeys.shares(model=model) == shares, model
    decayed = await journeys.attribution(model="time_decay")
    assert sum(share.amount for share in decayed.shares) == pytest.approx(150)
    assert [share.name for share in decayed.shares] == ["(direct)", "google", "newsletter", "facebook"]
    answer = await journeys.attribution()
    assert (answer.model, answer.group_by, answer.currency, answer.total, answer.orders) == ("last_non_direct", "source", "USD", 150, 1)
    assert await journeys.shares(model="first_touch", group_by="medium") == {"(not set)": 150}
    await journeys.happen(event("x", "page_view", ago(days=21), session="s6", source="newsletter"), link("session:s6", "u-1"))
    assert (await journeys.shares(model="linear", group_by="campaign"))["spring"] == 50


async def test_the_cents_that_are_left_go_to_any_name(journeys: Journeys) -> None:
    people = range(1, 25)
    await journeys.happen(
        *(
            event(f"e{user}{source}", "page_view", ago(days=9 - days), session=f"s{user}{source}", user=f"{user}", source=source)
            for user in people
            for days, source in enumerate(("facebook", "google", "newsletter"))
        ),
        *(order(f"p{user}", ago(days=1), "1.00", user_id=f"{user}") for user in people),
    )
    shares = await journeys.shares(model="linear")
    assert sum(shares.values()) == pytest.approx(24), shares
    # 0.33 of each order are certain, and no name takes more than two thirds of the 24 cents.
    assert all(0 < round(100 * amount) - 24 * 33 <= 16 for amount in shares.values()), shares
    assert await journeys.shares(model="linear") == shares


async def test_many_orders_are_read_in_few_statements(journeys: Journeys) -> None:
    numbers = range(1100)
    names = ["google", 'a "quoted" \\ name', "кириллица", "\N{PARTY POPPER}" * 60]
    blank = {column.name: None for column in models.orders.c}
    async with journeys.database.sessions.begin() as session:
        orders = [
            blank
            | {"purchase_id": f"p{n}", "subject": f"session:s{n}", "session_id": f"s{n}", "ordered_at": ago(days=2), "paid_at": ago(days=2)}
            | {"status": "completed", "net": Decimal("1.2345"), "excluded": False, "position": n, "ordinal": 0}
            for n in numbers
        ]
        await session.execute(insert(models.orders), orders)
        seen = {"external_at": ago(days=3), "external_id": "e", "medium": "", "campaign": "", "started_at": ago(days=3)}
        named = [seen | {"session": f"session:s{n}", "subject": f"session:s{n}", "source": names[n % 4]} for n in numbers]
        await session.execute(insert(models.sessions), named)
        await mark_pending(session, {f"session:s{n}" for n in numbers})
    await journeys.store.refresh()
    statements: list[str] = []
    listen(journeys.database.engine.sync_engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    for period in ({}, {"from": ago(days=30).isoformat()}):
        for model in [*MODELS, "time_decay"]:
            statements.clear()
            answer = await journeys.attribution(model=model, **period)
            assert {share.name: share.orders for share in answer.shares} == pytest.approx(dict.fromkeys(names, 275))
            assert answer.total == pytest.approx(1357.95)
            # Twice what is pending is counted, and once read what is asked for.
            assert len([statement for statement in statements if re.search("journey_|attribution_", statement)]) == 3
    assert (await journeys.attribution(**{"from": ago(days=1).isoformat()})).orders == 0


async def test_a_period_begins_and_ends_at_any_moment(journeys: Journeys) -> None:
    chance = random.Random(4)  # noqa: S311
    midnight = ago(days=2).replace(hour=0, minute=0, second=0, microsecond=0)
    paid = [midnight, *(ago(days=chance.random() * 6) for _ in range(20)), midnight - timedelta(microseconds=1)]
    await journeys.happen(
        *(
            event(f"e{n}", "page_view", at - timedelta(hours=1), session=f"s{n}", user=f"{n + 1}", source="google")
            for n, at in enumerate(paid)
        ),
        *(order(f"p{n}", at, f"{2**n}.00", user_id=f"{n + 1}") for n, at in enumerate(paid)),
    )
    moments = [*paid, *(midnight + timedelta(days=days) for days in range(-2, 3)), *(ago(days=chance.random() * 7) for _ in range(20))]
    moments.append(datetime(9999, 12, 31, 12, tzinfo=UTC))
    for _ in range(60):
        since, until = sorted(chance.sample(moments, 2))
        if since == until:
            continue
        period = {"from": since.isoformat(), "to": until.isoformat()}
        expected = [2**n for n, at in enumerate(paid) if since <= at < until]
        for model in ("linear", "markov"):
            answer = await journeys.attribution(model=model, **period)
            assert (answer.orders, answer.total) == (len(expected), sum(expected)), period
    assert (await journeys.attribution(**{"from": "9999-12-31T23:00:00Z"})).orders == 0


async def test_what_another_person_did_in_a_session_changes_the_paths_that_it_is_on(journeys: Journeys) -> None:
    await journeys.happen(
        event("a", "page_view", ago(days=3), session="s1", user="1", source="google"),
        order("p1", ago(days=2), user_id="1"),
        order("p2", ago(days=1), user_id="2", session_id="s1"),
    )
    assert await journeys.shares() == {"google": 398}
    await journeys.happen(event("b", "page_view", ago(days=3, minutes=5), session="s1", source="newsletter"))
    assert await journeys.shares() == {"newsletter": 398}
    await journeys.happen(order("p1", ago(days=2), user_id="3"))
    assert await journeys.shares() == {"newsletter": 199, "(none)": 199}


async def test_a_report_does_not_wait_for_long_and_says_what_is_pending(journeys: Journeys) -> None:
    await journeys.happen(order("p1", ago(days=2), "10.00", user_id="1"))
    assert (await journeys.attribution()).total == 10
    async with journeys.database.sessions.begin() as session:
        await mark_pending(session, ["wordpress:1"])
    async with journeys.database.sessions.begin() as session:
        # Whoever has this row changes totals, and nobody else does.
        await upsert(session, models.totals, [{"model": "", "group_by": "", "day": "", "payload": ""}])
        async with asyncio.timeout(5):
            answer = await journeys.call("GetAttribution", pb.GetAttributionRequest())
        assert (answer.total, answer.pending_changes) == (10, 1)
    assert (await journeys.attribution()).total == 10


async def test_several_that_work_off_what_is_pending_count_nothing_twice(journeys: Journeys) -> None:
    others = [AttributionStore(journeys.database.sessions, journeys.store.splitter) for _ in range(3)]
    for number in range(6):
        at = ago(days=number + 1)
        await journeys.happen(
            *(event(f"e{number}{n}", "page_view", at, session=f"s{number}{n}", user=f"{n}", source="google") for n in range(1, 9)),
            *(order(f"p{number}{n}", at + timedelta(hours=1), "1.00", user_id=f"{n}") for n in range(1, 9)),
        )
        await asyncio.gather(*(store.refresh() for store in (journeys.store, *others)))
    assert await journeys.shares() == {"google": 48}


async def test_a_payment_provider_brought_nobody(journeys: Journeys) -> None:
    await journeys.happen(
        event("v1", "page_view", ago(hours=3), session="s1", user="1", source="google"),
        event("v2", "page_view", ago(hours=2), session="s2", user="1", source="internal", url="https://shop.example/order-received"),
        order("p1", ago(hours=1), "100.00", user_id="1", session_id="s2"),
    )
    for model in ("first_touch", "last_touch", "last_non_direct", "linear", "position_based", "time_decay", "markov"):
        assert set(await journeys.shares(model=model)) <= {"google", "(direct)"}
    assert await journeys.shares() == {"google": 100}


async def test_a_path_ends_at_the_order_before_and_after_ninety_days(journeys: Journeys) -> None:
    await journeys.happen(
        event("v0", "page_view", ago(days=91), session="s0", user="1", source="newsletter"),
        event("v1", "page_view", ago(days=50), session="s1", user="1", source="facebook"),
        order("p1", ago(days=49), "10.00", user_id="1", session_id="s1"),
        order("p2", ago(days=49, minutes=-9), "20.00", user_id="1", session_id="s1"),
        event("v2", "page_view", ago(days=3), session="s2", user="1", source="google"),
        order("p3", ago(days=1), "40.00", user_id="1"),
        order("p4", ago(hours=1), "80.00", user_id="1"),
        event("v3", "page_view", ago(minutes=9), session="s3", user="1", source="newsletter"),
    )
    whole = await journeys.shares(model="first_touch")
    assert whole == {"newsletter": 10, "facebook": 20, "google": 40, "(none)": 80}
    recent = {"from": ago(days=2).isoformat()}
    assert await journeys.shares(model="first_touch", **recent) == {"google": 40, "(none)": 80}
    assert await journeys.shares(model="first_touch", **recent, to=ago(hours=2).isoformat()) == {"google": 40}


async def test_refunds_take_theirs_back_and_orders_without_a_rate_or_for_tests_stay_out(journeys: Journeys) -> None:
    await journeys.happen(*VISITS, *OWNED)
    await journeys.happen(
        order("p1", ago(days=25), "100.01", user_id="u-1"),
        order("p2", ago(days=8), "100.00", user_id="u-1"),
        order("p3", ago(days=7), "", user_id="u-1"),
        order("p4", ago(days=6), "500.00", user_id="u-1", excluded=True),
    )
    answer = await journeys.attribution(model="linear")
    assert (answer.total, answer.orders, answer.orders_without_rate) == (200.01, 2, 1)
    assert {share.name: (share.amount, share.orders) for share in answer.shares} == {
        "(direct)": (66.67, pytest.approx(2 / 3)),
        "facebook": (50.01, 0.5),
        "newsletter": (50.0, 0.5),
        "google": (33.33, pytest.approx(1 / 3)),
    }
    await journeys.happen(order("p1", ago(days=25), "0.00", user_id="u-1"), order("p2", ago(days=8), "60.00", user_id="u-1"))
    assert await journeys.shares(model="linear") == {"(direct)": 40, "google": 20, "facebook": 0, "newsletter": 0}


async def test_the_paths_of_those_who_buy_nothing_count_for_a_markov_chain(journeys: Journeys) -> None:
    await journeys.happen(
        event("a", "page_view", ago(days=3), session="a", user="1", source="google"),
        event("b", "page_view", ago(days=2), session="b", user="1", source="facebook"),
        order("p1", ago(days=1), "100.00", user_id="1"),
    )
    assert await journeys.shares(model="markov") == {"google": 50, "facebook": 50}
    await journeys.happen(*(event(f"c{number}", "page_view", ago(days=2), session=f"c{number}", source="facebook") for number in range(3)))
    # One of four who come by facebook buys, and one of four comes by google before: 1/16 of 1/4 is lost without it.
    assert await journeys.shares(model="markov") == {"google": 20, "facebook": 80}
    assert await journeys.shares(model="markov", **{"from": ago(days=1, hours=1).isoformat()}) == {"google": 50, "facebook": 50}


async def test_any_merges_that_are_undone_leave_journeys_and_attribution_as_they_were(journeys: Journeys) -> None:
    chance = random.Random(22)  # noqa: S311
    users = [f"u-{number}" for number in range(5)]
    sources = [*CHANNELS]
    await journeys.happen(
        *(link(f"session:s{number}", chance.choice(users), ago(days=number)) for number in range(12)),
        *(
            event(f"e{n}", "page_view", ago(days=chance.random() * 80), session=f"s{n % 14}", source=chance.choice(sources))
            for n in range(40)
        ),
        *(order(f"p{number}", ago(days=chance.random() * 40), f"{number}.37", user_id=chance.choice(users)) for number in range(9)),
    )

    async def everything() -> list[Message]:
        asked = [journeys.attribution(model=model, group_by=group) for model in MODELS for group in ("source", "medium")]
        return [*await asyncio.gather(*(journeys.journey(user) for user in users)), *await asyncio.gather(*asked)]

    before = await everything()
    for _ in range(3):
        merges = list(zip(chance.sample(users, 3), chance.sample(users, 3), strict=True))
        merges = [pair for number, pair in enumerate(merges) if len({*pair}) == 2 and pair[0] not in {one for one, _ in merges[:number]}]
        merges = [pair for pair in merges if (pair[1], pair[0]) not in merges]
        await journeys.happen(*(merge(*pair) for pair in merges))
        assert await everything() != before
        await journeys.happen(*(merge(*pair, undone=True) for pair in chance.sample(merges, len(merges))))
        assert await everything() == before


async def test_late_and_unordered_and_repeated_events_give_the_same_sessions(journeys: Journeys) -> None:
    one, two = (
        [*VISITS, *BRIEF[:4]],
        [event(f"r{n}", "page_view", ago(days=n % 9), session=f"s{n % 4}", source=s) for n, s in enumerate([*CHANNELS] * 4)],
    )
    await journeys.happen(*one, *two, *OWNED)
    first = await journeys.rows(models.sessions), await journeys.journey("u-1")
    for table in (models.touchpoints, models.sessions):
        async with journeys.database.sessions.begin() as session:
            await session.execute(delete(table))
    late = [*one, *two, *one]
    random.Random(7).shuffle(late)  # noqa: S311
    await journeys.happen(*late)
    assert (await journeys.rows(models.sessions), await journeys.journey("u-1")) == first


async def test_a_replay_changes_nothing(journeys: Journeys) -> None:
    await journeys.happen(*BRIEF, *KNOWN, order("p1", None, user_id="42"), order("p1", ago(days=7), "150.00", user_id="42"))
    tables = (models.touchpoints, models.sessions, models.orders)
    before = [await journeys.rows(table) for table in tables], await journeys.journey("42")
    await journeys.replay()
    assert ([await journeys.rows(table) for table in tables], await journeys.journey("42")) == before


async def test_bots_are_on_no_journey(journeys: Journeys) -> None:
    await journeys.happen(event("bot", "page_view", NOW, session="s1", bot=True))
    assert await journeys.rows() == []


async def test_touchpoints_events_browsers_and_servers_never_take_ids_from_each_other(journeys: Journeys) -> None:
    browsers = event("mine", "page_view", NOW, session="s1")
    browsers.key = key_of("mine", from_browser=True)
    await journeys.touch(touchpoint(id="mine", action="by browser"), scope="track", user="42")
    await journeys.happen(event("mine", "page_view", NOW, session="s1"), browsers)
    await journeys.touch(touchpoint(id="mine", action="by server"))
    assert sorted((row["id"], row["origin"], row["action_taken"]) for row in await journeys.rows()) == [
        ("mine", "client", "by browser"),
        ("mine", "client", "by server"),
        ("mine", "event", "page_view"),
        ("mine", "event", "page_view"),
    ]
    published = [change.touchpoint for change in await journeys.published()]
    assert {change.id for change in published} == {"mine"}
    assert len({change.key for change in published}) == 2
    async with journeys.database.sessions() as session:
        assert not await dead_letters.find(session)


async def test_a_touchpoint_from_before_there_were_key_spaces_is_still_known(journeys: Journeys) -> None:
    old = touchpoint(id="old")
    await journeys.touch(old)
    async with journeys.database.sessions.begin() as session:
        await session.execute(update(models.touchpoints).values(id="old", content_hash=b"sixteen bytes..."))
    assert (await journeys.touch(old)).duplicate
    assert len(await journeys.rows()) == 1


@pytest.mark.parametrize("kind", ["touch", "convert"])
async def test_what_is_repeated_after_the_login_is_a_duplicate_that_adds_the_user(journeys: Journeys, kind: str) -> None:
    track, record = (journeys.touch, touchpoint) if kind == "touch" else (journeys.convert, conversion)
    table = models.touchpoints if kind == "touch" else models.conversions
    first = {**record(), "user_id": "", "session_id": "s1", "source": ""}
    assert not (await track(first)).duplicate
    assert (await track({**first, "user_id": "42", "source": "newsletter"})).duplicate
    assert (await track({**first, "user_id": "43", "source": "ads"})).duplicate
    [row] = await journeys.rows(table)
    assert (row["user_id"], row["subject"], row["source"]) == ("42", "wordpress:42", "newsletter")
    changes = [change.touchpoint if kind == "touch" else change.conversion for change in await journeys.published()]
    assert [change.user_id for change in changes] == ["", "42"]


async def test_an_event_that_was_filled_in_is_the_same_touchpoint(journeys: Journeys) -> None:
    await journeys.happen(event("e1", "page_view", NOW, session="s1"))
    again = event("e1", "page_view", NOW, session="s1", user="42")
    again.is_update = True
    await journeys.happen(again, again)
    [row] = await journeys.rows()
    assert (row["user_id"], row["subject"]) == ("42", "wordpress:42")


async def test_names_of_traffic_may_be_as_long_as_an_address(journeys: Journeys) -> None:
    long = event("e1", "page_view", NOW, session="s1", source="newsletter")
    long.enrichment.traffic_source = long.enrichment.campaign = "x" * 4000
    await journeys.happen(long)
    [row] = await journeys.rows()
    assert (row["source"], row["medium"], row["campaign"]) == ("x" * 255, "email", "x" * 255)


async def test_the_history_is_for_the_mesh_alone(journeys: Journeys) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await journeys.history(scope="admin")
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_an_address_is_the_identifier_only_without_a_session(journeys: Journeys) -> None:
    events = [event(name, "lead_capture", NOW, session="s1" if name == "session" else "") for name in ("session", "server", "browser")]
    for message in events:
        message.email_hash = b"\xab" * 32
        message.scope = "track" if message.event.id == "browser" else "site"
    await journeys.happen(*events)
    assert {row["id"]: row["subject"] for row in await journeys.rows()} == {
        "session": "session:s1",
        "server": "email:" + "ab" * 32,
        "browser": "visitor:v-0123",
    }


async def test_a_funnel_follows_people_over_their_sessions(journeys: Journeys) -> None:
    await journeys.happen(
        event("a", "home", ago(days=5), session="s1"),
        event("b", "product_view", ago(days=4), session="s2", user="1"),
        event("c", "add_to_cart", ago(days=3), session="s3", user="1"),
        event("d", "home", ago(days=5), session="x"),
        event("e", "add_to_cart", ago(days=4), session="x"),
        event("f", "product_view", ago(days=3), session="x"),
        event("g", "product_view", ago(days=3), session="y"),
        order("p1", ago(days=2), user_id="1"),
    )
    steps = ["home", "product_view", "add_to_cart", "purchase"]
    assert await journeys.funnel(steps=steps) == [("home", 2), ("product_view", 1), ("add_to_cart", 0), ("purchase", 0)]
    await journeys.happen(link("session:s1", "u-1"), link("wordpress:1", "u-1"))
    assert await journeys.funnel(steps=[",".join(steps)]) == [("home", 2), ("product_view", 2), ("add_to_cart", 1), ("purchase", 1)]
    assert await journeys.funnel(steps=steps, window="172800s") == [("home", 2), ("product_view", 2), ("add_to_cart", 1), ("purchase", 0)]
    assert await journeys.funnel(steps=steps, to=ago(days=4).isoformat()) == [(step, 2 * (step == "home")) for step in steps]
    await journeys.touch(touchpoint(action="webinar", session_id="y"))
    assert await journeys.funnel(steps=["product_view", "webinar"], **{"from": ago(days=3).isoformat()}) == [
        ("product_view", 2),
        ("webinar", 1),
    ]
    answer = await journeys.call("GetFunnel", pb.GetFunnelRequest(steps=steps))
    assert [(step.drop_off, step.conversion) for step in answer.steps] == [(0, 1), (0, 1), (1, 0.5), (0, 1)]
    assert [step.HasField("median_time") for step in answer.steps] == [False, True, True, True]
    assert answer.steps[1].median_time.ToTimedelta() == timedelta(days=1, hours=12)


async def crowd(journeys: Journeys, count: int = 3000) -> None:
    """Others, long ago: so many that no planner takes to reading all of a table."""
    people = [event(f"o{number}", "search", ago(days=200), session=f"o{number}", source="google") for number in range(count)]
    async with journeys.database.sessions.begin() as session:
        rows = [event_row(message, NOW) for message in people]
        await Touchpoints(session).add(rows)
        await Touchpoints(session).see(seen for row in rows if (seen := session_facts(row)))
        bought = [order_row(order(f"o{number}", ago(days=200), session_id=f"o{number}"), 1, number) for number in range(count)]
        await Orders(session).put(bought)
        await upsert(session, persons, [{"subject": f"session:o{number}", "person_id": f"o{number // 9}"} for number in range(count)])
    async with journeys.database.engine.connect() as connection:
        if connection.dialect.name == "mysql":
            await connection.exec_driver_sql("ANALYZE TABLE user_journeys, journey_sessions, journey_orders, persons")


async def test_what_the_api_asks_reads_indexes_alone(journeys: Journeys) -> None:
    asked: list[tuple[str, Any]] = []
    await crowd(journeys)
    await journeys.happen(*BRIEF, *VISITS, *KNOWN, *OWNED, order("p1", ago(days=1), user_id="42", session_id="s3"))
    await journeys.store.refresh()

    @listens_for(journeys.database.engine.sync_engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    since = {"from": ago(days=90).isoformat()}
    first = await journeys.journey("42", page_size=2)
    await journeys.journey("42", page_token=first.next_page_token)
    for model in ("linear", "markov"):
        assert (await journeys.attribution(model=model, **since)).orders == 1
    await journeys.funnel(steps=["page_view", "purchase"], **since)
    await journeys.touch(touchpoint(id="new"))
    await journeys.convert(conversion(id="new"))
    await journeys.happen(event("new-e", "page_view", NOW, session="s9"), order("p2", NOW, user_id="42"))
    remove(journeys.database.engine.sync_engine, "before_cursor_execute", note)
    # What is pending is worked off in the order in which it was written, and is all of its table.
    tables = re.compile(r"user_journeys|conversions|journey_\w+|attribution_(paths|totals)")
    own = [(statement, parameters) for statement, parameters in asked if tables.search(statement)]
    assert len(own) > 20
    assert await scanned(journeys.database, "SELECT * FROM user_journeys WHERE medium = 'email'", ())
    for statement, parameters in own:
        assert await scanned(journeys.database, statement, parameters) == [], statement


SHORT = {
    "site_retention_tables": {f"journeys.{table}": timedelta(days=10) for table in ("user_journeys", "conversions", "journey_sessions")}
}


@pytest.mark.parametrize("settings", [SHORT], indirect=True)
async def test_what_grows_old_goes_from_tables_and_history_and_does_not_come_again(journeys: Journeys, settings: Settings) -> None:
    for number in range(3):
        sent = {"id": f"old-{number}", "timestamp": ago(days=9).isoformat()}
        await journeys.touch(touchpoint(**sent))
        await journeys.convert(conversion(**sent))
        await journeys.touch(touchpoint(id=f"new-{number}", session_id="s2"))
    await journeys.published()
    tables = expiries(personal_tables(HASHER, erase_sessions, erase_sessions))
    topic = StateTopic(TOPIC, settings.log_partitions)
    retention = Retention(settings, "journeys", journeys.database.sessions, tables, topic, after={"journey_sessions": mark_expired})
    assert not any((await retention.look(NOW)).values())
    assert await retention.look(NOW + timedelta(days=2)) == {"user_journeys": 3, "conversions": 3, "journey_sessions": 1}
    assert [row["id"] for row in await journeys.rows()] == ["new-0", "new-1", "new-2"]
    assert await journeys.rows(models.conversions) == []
    assert [row["session"] for row in await journeys.rows(models.sessions)] == ["session:s2"]
    assert {change.touchpoint.id for change in await journeys.history()} == {"new-0", "new-1", "new-2"}
    for call in (
        journeys.touch(touchpoint(timestamp=ago(days=11).isoformat())),
        journeys.convert(conversion(timestamp=ago(days=11).isoformat())),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match="older than the site's retention"):
            await call


async def test_conversions_have_no_retention_of_events(journeys: Journeys) -> None:
    await journeys.convert(conversion(timestamp=ago(days=4000).isoformat()))
    assert len(await journeys.rows(models.conversions)) == 1
    with pytest.raises(grpc.aio.AioRpcError, match="PMP_SITE_RETENTION: 1095 days"):
        await journeys.touch(touchpoint(timestamp=ago(days=1200).isoformat()))


def test_a_table_that_does_not_grow_old_is_named(settings: Settings) -> None:
    wrong = settings.model_copy(
        update={"site_retention_tables": {"journeys.journey_orders": timedelta(days=1), "identity.x": timedelta(days=1)}}
    )
    with pytest.raises(WrongSetting, match=r"journeys\.journey_orders does not grow old"):
        Retention(
            wrong,
            "journeys",
            Sessions(create_async_engine("sqlite+aiosqlite://")),
            expiries(personal_tables(HASHER, erase_sessions, erase_sessions)),
        )


async def erase_sessions(*_arguments: Any) -> int:
    """Nobody is erased here."""
    raise AssertionError


async def scanned(database: Database, statement: str, parameters: Any) -> list[Fields]:
    """Steps of a statement's plan that read all of a table."""
    async with database.engine.connect() as connection:
        is_sqlite = connection.dialect.name == "sqlite"
        explain = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"
        plan = (await connection.exec_driver_sql(f"{explain} {statement}", parameters)).mappings().all()
    if is_sqlite:
        return [{**step} for step in plan if re.match(r"SCAN (?!anon_\d|\(subquery-)", step["detail"])]
    return [{**step} for step in plan if step["type"] in {"ALL", "index"} and not str(step["table"]).startswith("<")]


async def test_a_touchpoint_with_the_id_of_nobody_belongs_to_its_session_and_without_one_is_refused(journeys: Journeys) -> None:
    await journeys.touch(touchpoint(user_id="0"))
    with pytest.raises(grpc.aio.AioRpcError, match="nothing is known of this user"):
        await journeys.journey("0")
    for refused in (journeys.touch(touchpoint(user_id="null", session_id="0")), journeys.convert(conversion(session_id="undefined"))):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await refused
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
