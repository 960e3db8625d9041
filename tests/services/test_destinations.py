"""Deliveries to other systems: what is decided, sent, withheld, repeated and given up, in both databases."""

from __future__ import annotations

import asyncio
import json
import ssl
import tracemalloc
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import time
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from pmp.destinations.v1 import conflicts_pb2
from pmp.destinations.v1 import destinations_pb2 as pb
from pmp.destinations.v1.conflicts_pb2_grpc import ConflictsServiceStub
from pmp.destinations.v1.destinations_pb2_grpc import DestinationsServiceStub
from pmp.gdpr.v1.change_pb2 import Choice, ConsentChanged, ConsentConflict, GdprChanged, SuppressionChanged
from pmp.identity.v1.change_pb2 import AliasChanged, IdentityChanged, UserChanged
from pmp.ingestion.v1.event_pb2 import Event, EventStored
from pmp.purchases.v1 import change_pb2 as purchases
from sqlalchemy import delete, func, select, text, update

from kit.log.publish.outbox import prepare_heads
from kit.log.publish.state_topic import StateTopic
from kit.people.subjects.data import SubjectData
from kit.people.suppression import digest
from kit.service.resources import Resources
from kit.service.runtime import ServiceRuntime
from kit.settings import Settings
from services.destinations.composition import ROLE
from services.destinations.conflicts.models import ConflictRow
from services.destinations.conflicts.personal import CONFLICTS
from services.destinations.models import DeliveryRow, DestinationRow, MessageRow
from services.destinations.queue import delivery_id
from services.destinations.repository import Destinations
from services.destinations.waking import Waking
from tests.background import eventually, running, until
from tests.databases import newest_database
from tests.roles import serving, settings_for
from tests.topics import Topics
from tests.webhooks import SECOND_SECRET, SECRET, Reply, Systems, systems

NOW = datetime.now(UTC)
PAYLOADS = Path(__file__).parent.parent / "payloads"
ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what does not depend on the database."""


def stamp(at: datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(at)
    return found


def page_view(id_: str, *, session: str = "s1", at: datetime | None = None, **more: Any) -> EventStored:
    event = Event(id=id_, event_type="page_view", session_id=session, timestamp=stamp(at or datetime.now(UTC)), **more)
    return EventStored(event=event, key=id_)


def order(number: int, *, refunds: int = 0, session: str = "s1", **more: Any) -> purchases.PurchaseChanged:
    at = stamp(datetime.now(UTC))
    entries = [purchases.LedgerEntry(kind=purchases.ENTRY_KIND_SALE, amount="10", timestamp=at)]
    entries += [
        purchases.LedgerEntry(kind=purchases.ENTRY_KIND_PARTIAL_REFUND, reference=f"r{each}", amount="-1", timestamp=at)
        for each in range(refunds)
    ]
    return purchases.PurchaseChanged(
        purchase_id=f"p{number}",
        order_id=str(number),
        timestamp=at,
        sold_at=at,
        subject=f"session:{session}",
        session_id=session,
        currency="EUR",
        amount="10",
        entries=entries,
        **more,
    )


def table(port: int, path: str = "all", **more: Any) -> str:
    options: dict[str, Any] = {"types": ["event.page_view", "order.*"], "consent": "none", "allow_private_networks": True, **more}
    lines = [f"[{path}]", 'kind = "webhook"', f'url = "http://127.0.0.1:{port}/{path}"', 'secrets = ["HOOK_SECRET"]']
    return "\n".join([*lines, *(f"{name} = {_toml(value)}" for name, value in options.items())])


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')


def certified(name: str, folder: Path) -> ssl.SSLContext:
    """A server with a certificate for a name that it signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(), NOW, NOW + timedelta(days=1))
    pem = folder / "server.pem"
    pem.write_bytes(
        builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM) + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


@dataclass
class Deliverer:
    """Destinations, and the topics that it follows."""

    runtime: ServiceRuntime
    topics: Topics

    async def states(self, destination: str = "all") -> dict[str, int]:
        """The books of a destination; nothing while its rows do not agree with them."""
        async with self.runtime.sessions.reading() as session:
            query = select(DeliveryRow.state, func.count()).where(DeliveryRow.destination == destination).group_by(DeliveryRow.state)
            counted = {row[0]: row[1] for row in await session.execute(query)}
            kept = (await Destinations(session).books())[destination].by_state
        return counted if {state: count for state, count in kept.items() if count} == counted else {}

    async def rows(self) -> list[DeliveryRow]:
        async with self.runtime.sessions.reading() as session:
            return list(await session.scalars(select(DeliveryRow).order_by(DeliveryRow.id)))

    async def state(self, destination: str = "all") -> DestinationRow:
        async with self.runtime.sessions.reading() as session:
            row = await Destinations(session).get(destination)
        assert row is not None
        return row

    async def make_due(self) -> None:
        """Lets the time pass until the next attempts, and ends the rest of circuit breakers."""
        async with self.runtime.sessions.begin() as session:
            waiting = (DeliveryRow.state == "pending", DeliveryRow.claim == "")
            await session.execute(update(DeliveryRow).where(*waiting).values(next_attempt_at=NOW - timedelta(days=1)))
            await session.execute(update(DestinationRow).values(open_until=None))
        self.wake()

    async def publish(self, topic: str, *changes: Any) -> None:
        async with self.runtime.sessions.begin() as session:
            await StateTopic(topic, self.topics.partitions).publish(session, [(str(each)[:255], each) for each in changes])
        await self.topics.follow()

    async def consents(self, subject: str, *, granted: bool, purpose: str = "third_party_sharing") -> None:
        choice = Choice(granted=granted, decided_at=stamp(datetime.now(UTC)))
        changed = ConsentChanged(subject=subject)
        getattr(changed, purpose).CopyFrom(choice)
        await self.publish("gdpr", GdprChanged(consent=changed))

    def wake(self) -> None:
        """What another process does to the rows is seen later."""
        work, *_ = self.runtime.background
        getattr(work, "__self__").wake()  # noqa: B009

    @asynccontextmanager
    async def sending(self) -> AsyncGenerator[None]:
        work, *_ = self.runtime.background
        async with running(work()):
            yield


@asynccontextmanager
async def deliverer(settings: Settings, resources: Resources, file: Path, *tables: str) -> AsyncGenerator[Deliverer]:
    await asyncio.to_thread(file.write_text, "\n".join(tables))
    async with newest_database(settings, "destinations"):
        runtime = ROLE.compose(settings_for(ROLE, settings, destinations=file), resources)
        await runtime.prepare()
        for topic in ("events", "gdpr", "identity", "journeys", "purchases"):
            await runtime.log.fix_partitions(topic, settings.log_partitions)
            await prepare_heads(runtime.sessions, topic, settings.log_partitions)
        yield Deliverer(runtime, Topics(runtime))


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    monkeypatch.setenv("SECOND_SECRET", SECOND_SECRET)


@pytest.fixture
async def shop() -> AsyncGenerator[Systems]:
    async with systems() as found:
        yield found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "destinations.toml"


async def test_what_happened_is_delivered_once_and_signed(settings: Settings, resources: Resources, shop: Systems, file: Path) -> None:
    async with deliverer(settings, resources, file, table(shop.port)) as mesh, mesh.sending():
        await mesh.topics.happen(page_view("e1"), order(1, refunds=2))
        await mesh.topics.happen(order(1, refunds=2), page_view("e1"))
        await eventually(lambda: _is(mesh.states(), {"delivered": 5}))
        assert sorted(shop.types("/all")) == ["event.page_view", "order.paid", "order.placed", "order.refunded", "order.refunded"]
        assert [each for each in shop.types("/all") if each != "event.page_view"] == [
            "order.placed",
            "order.paid",
            "order.refunded",
            "order.refunded",
        ]
        assert set(shop.ids("/all").values()) == {1}
        assert shop.forged == 0


async def test_a_failed_attempt_is_repeated_under_its_id_and_blocks_only_its_own_order(
    settings: Settings, resources: Resources, shop: Systems, file: Path
) -> None:
    async with deliverer(settings, resources, file, table(shop.port)) as mesh, mesh.sending():
        shop.replies["/all"] = Reply(503)
        await mesh.topics.happen(order(1))
        await eventually(lambda: _attempted(mesh, 1))
        shop.replies["/all"] = Reply(200)
        await mesh.topics.happen(order(2), page_view("e1"))
        await eventually(lambda: _is(mesh.states(), {"delivered": 3, "pending": 2}))
        first, second, *_ = await mesh.rows()
        assert (first.detail, first.attempts, second.attempts) == ("HTTP 503", 1, 0)
        assert NOW < first.next_attempt_at < datetime.now(UTC) + timedelta(seconds=8)
        await mesh.make_due()
        await eventually(lambda: _is(mesh.states(), {"delivered": 5}))
        assert shop.types("/all")[-2:] == ["order.placed", "order.paid"]
        assert sorted(shop.ids("/all").values()) == [1, 1, 1, 1, 2]
        assert (await mesh.state()).attempts == 6


async def test_a_destination_that_fails_is_left_alone_and_its_deliveries_use_no_attempts(
    settings: Settings, resources: Resources, shop: Systems, file: Path
) -> None:
    async with deliverer(settings, resources, file, table(shop.port), table(shop.port, "well")) as mesh, mesh.sending():
        shop.replies["/all"] = Reply(500)
        await mesh.topics.happen(*(page_view(f"e{number}") for number in range(100)))
        await eventually(lambda: _is(mesh.states("well"), {"delivered": 100}))
        await eventually(lambda: _opened(mesh, 1))
        await eventually(lambda: _is(_claimed(mesh, "all"), 0))  # nothing is under way any more
        state = await mesh.state()
        assert state.opened == 1
        assert state.open_until is not None
        assert len(shop.received["/all"]) <= 32
        asked = len(shop.received["/all"])
        await mesh.make_due()
        await eventually(lambda: _opened(mesh, 2))
        assert len(shop.received["/all"]) == asked + 1
        assert sum(row.attempts for row in await mesh.rows() if row.destination == "all") == asked + 1
        shop.replies["/all"] = Reply(200)
        await mesh.make_due()
        await eventually(lambda: _is(mesh.states(), {"delivered": 100}))


@ONE_DATABASE
async def test_a_destination_that_asks_to_wait_is_not_called_until_then(
    settings: Settings, resources: Resources, shop: Systems, file: Path
) -> None:
    async with deliverer(settings, resources, file, table(shop.port)) as mesh, mesh.sending():
        shop.replies["/all"] = Reply(429, {"retry-after": "30"})
        await mesh.topics.happen(page_view("e1"))
        await eventually(lambda: _attempted(mesh, 1))
        shop.replies["/all"] = Reply(200)
        await mesh.topics.happen(page_view("e2"))
        await asyncio.sleep(0.3)
        state, (first, second) = await mesh.state(), await mesh.rows()
        assert state.open_until is not None
        assert state.open_until > datetime.now(UTC) + timedelta(seconds=25)
        assert (first.attempts, second.attempts) == (1, 0)
        assert len(shop.received["/all"]) == 1


@ONE_DATABASE
@pytest.mark.parametrize("status", [401, 410])
async def test_a_destination_that_refuses_the_credentials_or_is_gone_is_paused(
    settings: Settings, resources: Resources, shop: Systems, file: Path, status: int
) -> None:
    async with deliverer(settings, resources, file, table(shop.port)) as mesh, mesh.sending():
        shop.replies["/all"] = Reply(status)
        await mesh.topics.happen(page_view("e1"))
        await eventually(lambda: _paused(mesh))
        (row,) = await mesh.rows()
        assert (row.state, row.attempts, row.claim) == ("pending", 0, "")
        assert (await mesh.state()).pause_reason.startswith(f"HTTP {status}")
        await mesh.topics.happen(page_view("e2"))
        await asyncio.sleep(0.2)
        assert len(shop.received["/all"]) == 1


@ONE_DATABASE
async def test_a_refused_delivery_is_a_dead_letter_and_frees_its_order(
    settings: Settings, resources: Resources, shop: Systems, file: Path
) -> None:
    async with deliverer(settings, resources, file, table(shop.port)) as mesh, mesh.sending():
        shop.replies["/all"] = Reply(422)
        await mesh.topics.happen(order(1))
        await eventually(lambda: _is(mesh.states(), {"dead": 2}))
        assert {row.detail for row in await mesh.rows()} == {"HTTP 422"}


async def test_a_sender_that_died_is_taken_over_under_the_same_id(
    settings: Settings, resources: Resources, shop: Systems, file: Path
) -> None:
    async with deliverer(settings, resources, file, table(shop.port)) as mesh:
        await mesh.topics.happen(page_view("e1"))
        async with mesh.runtime.sessions.begin() as session:
            claim = {"claim": "dead", "attempts": 1, "next_attempt_at": NOW - timedelta(seconds=1)}
            await session.execute(update(DeliveryRow).values(claim))
        async with mesh.sending():
            await eventually(lambda: _is(mesh.states(), {"delivered": 1}))
        (row,) = await mesh.rows()
        assert list(shop.ids("/all")) == [delivery_id("all", row.key)]


async def test_a_sender_that_was_taken_over_changes_nothing_any_more(
    settings: Settings, resources: Resources, shop: Systems, file: Path
) -> None:
    async with deliverer(settings, resources, file, table(shop.port)) as mesh, mesh.sending():
        shop.replies["/all"] = Reply(500, seconds=2.0)
        await mesh.topics.happen(page_view("e1"))
        await until(lambda: shop.received["/all"])
        async with mesh.runtime.sessions.begin() as session:
            await session.execute(update(DeliveryRow).values(claim="other", next_attempt_at=NOW + timedelta(hours=1)))
        await asyncio.sleep(2.5)
        (row,) = await mesh.rows()
        assert (row.claim, row.detail, await mesh.states()) == ("other", "", {"pending": 1})


async def test_consent_is_asked_for_when_it_is_sent(settings: Settings, resources: Resources, shop: Systems, file: Path) -> None:
    async with deliverer(settings, resources, file, table(shop.port, consent="third_party_sharing")) as mesh:
        await mesh.consents("session:yes", granted=True)
        await mesh.consents("session:gpc", granted=True)
        await mesh.consents("session:withdrawn", granted=True)
        await mesh.consents("session:no", granted=False)
        await mesh.topics.happen(
            page_view("e1", session="yes"),
            page_view("e2", session="no"),
            page_view("e3", session="unknown"),
            page_view("e4", session="gpc", global_privacy_control=True),
            page_view("e5", session="withdrawn"),
        )
        await mesh.consents("session:withdrawn", granted=False)
        async with mesh.sending():
            await eventually(lambda: _is(mesh.states(), {"delivered": 1, "withheld": 4}))
        assert [each.content["data"]["event"]["id"] for each in shop.received["/all"]] == ["e1"]
        assert {row.detail for row in await mesh.rows() if row.state == "withheld"} == {"no consent: third_party_sharing"}


async def test_nothing_is_sent_about_the_erased(settings: Settings, resources: Resources, shop: Systems, file: Path) -> None:
    async with deliverer(settings, resources, file, table(shop.port)) as mesh:
        await mesh.topics.happen(page_view("e1", session="erased"), page_view("e2", session="gone"), page_view("e3", session="s1"))
        erased = SuppressionChanged(digest=digest(resources.keys.hasher, "session:erased"), erased_at=stamp(datetime.now(UTC)))
        await mesh.publish("gdpr", GdprChanged(suppression=erased))
        async with mesh.runtime.sessions.begin() as session:
            await session.execute(delete(MessageRow).where(MessageRow.session == "session:gone"))
        async with mesh.sending():
            await eventually(lambda: _is(mesh.states(), {"delivered": 1, "withheld": 2}))
        await mesh.topics.happen(page_view("e4", session="erased"))
        assert len(await mesh.rows()) == 3


@ONE_DATABASE
async def test_who_registers_again_after_an_erasure_is_a_new_person(
    settings: Settings, resources: Resources, shop: Systems, file: Path
) -> None:
    address = b"a" * 32
    subject = f"email:{address.hex()}"
    async with deliverer(settings, resources, file, table(shop.port)) as mesh:
        erased = SuppressionChanged(digest=digest(resources.keys.hasher, subject), erased_at=stamp(NOW - timedelta(hours=1)))
        await mesh.publish("gdpr", GdprChanged(suppression=erased))
        await mesh.topics.happen(order(1, email_hash=address))
        assert await mesh.rows() == []
        linked = AliasChanged(subject=subject, user_id="anew", linked_at=stamp(NOW - timedelta(minutes=1)))
        await mesh.publish("identity", IdentityChanged(alias=linked))
        await mesh.topics.happen(order(2, email_hash=address))
        assert [row.name for row in await mesh.rows()] == ["order.placed", "order.paid"]


@ONE_DATABASE
async def test_an_erasure_waits_for_an_attempt_that_would_bring_the_person_back(
    settings: Settings, resources: Resources, shop: Systems, file: Path
) -> None:
    async with deliverer(settings, resources, file, table(shop.port, types=["*"])) as mesh, serving(mesh.runtime) as channel:
        await mesh.topics.happen(page_view("e1"))
        async with mesh.runtime.sessions.begin() as session:
            await session.execute(update(DeliveryRow).values(claim="another", next_attempt_at=NOW + timedelta(hours=1)))
            await session.execute(delete(MessageRow))
        stub: Any = DestinationsServiceStub(channel)
        request = pb.ErasePersonRequest(request="r1", names=["wordpress:42"])
        async with mesh.sending():
            (answer,) = (await stub.ErasePerson(request, metadata=settings.mesh_metadata)).answers
            assert (answer.answer, answer.is_final, shop.received["/all"]) == ("waits for an attempt under way", False, [])
            async with mesh.runtime.sessions.begin() as session:
                await session.execute(update(DeliveryRow).values(claim=""))
            assert (await stub.ErasePerson(request, metadata=settings.mesh_metadata)).is_done


@ONE_DATABASE
async def test_history_is_not_delivered(settings: Settings, resources: Resources, shop: Systems, file: Path) -> None:
    async with deliverer(settings, resources, file, table(shop.port)) as mesh:
        old = order(1, historical=True, refunds=2)
        old.entries[1].historical = True
        await mesh.topics.happen(page_view("e1", historical=True), page_view("e2", at=NOW - timedelta(days=1)), old)
        assert [row.name for row in await mesh.rows()] == ["order.refunded"]


@ONE_DATABASE
async def test_webhooks_contain_nothing_personal_and_are_signed_by_each_secret(
    settings: Settings, resources: Resources, shop: Systems, file: Path
) -> None:
    shop.secret = SECOND_SECRET
    signed = table(shop.port).replace('["HOOK_SECRET"]', '["HOOK_SECRET", "SECOND_SECRET"]')
    async with deliverer(settings, resources, file, signed) as mesh, mesh.sending():
        event = page_view("e1", ip_address="192.0.2.0", page_url="https://shop.example/a")
        event.email_hash = b"hash of the address"
        await mesh.topics.happen(event)
        await eventually(lambda: _is(mesh.states(), {"delivered": 1}))
        (webhook,) = shop.received["/all"]
        assert webhook.content["schema"] == "pmp.ingestion.v1.EventStored"
        assert webhook.content["data"]["event"].keys() == {"id", "event_type", "session_id", "timestamp", "page_url"}
        assert webhook.content["data"].keys() == {"event", "key"}


@ONE_DATABASE
async def test_where_a_webhook_can_not_go_is_said(settings: Settings, resources: Resources, shop: Systems, file: Path) -> None:
    shop.replies["/moved"] = Reply(302, {"location": "/other"})
    public = {"allow_private_networks": False}
    async with systems(certified("shop.example", file.parent)) as forged:
        expected: dict[str, tuple[str, dict[str, Any], str]] = {
            "moved": (f"http://127.0.0.1:{shop.port}/moved", {}, "HTTP 302: redirects are not followed"),
            "private": (f"https://127.0.0.1:{shop.port}/private", public, "its address is not public"),
            "local": (f"https://localhost:{shop.port}/local", public, "its address is not public"),
            "mapped": (f"https://[::ffff:127.0.0.1]:{shop.port}/mapped", public, "its address is not public"),
            "forged": (f"https://127.0.0.1:{forged.port}/forged", {}, "ConnectError"),
            "closed": ("http://127.0.0.1:9/closed", {}, "ConnectError"),
            "nowhere": ("https://no-such-host.invalid/nowhere", {}, "its name does not resolve: gaierror"),
        }
        tables = [
            table(shop.port, name, **more).replace(f"http://127.0.0.1:{shop.port}/{name}", url) for name, (url, more, _) in expected.items()
        ]
        async with deliverer(settings, resources, file, *tables) as mesh, mesh.sending():
            await mesh.topics.happen(page_view("e1"))
            await eventually(lambda: _all_attempted(mesh))
            assert {row.destination: row.detail for row in await mesh.rows()} == {name: detail for name, (*_, detail) in expected.items()}
            assert {row.state for row in await mesh.rows()} == {"pending"}
        assert shop.received.keys() == {"/moved"}
        assert not forged.received


@ONE_DATABASE
async def test_of_a_large_answer_hardly_anything_is_read(settings: Settings, resources: Resources, shop: Systems, file: Path) -> None:
    async with deliverer(settings, resources, file, table(shop.port)) as mesh, mesh.sending():
        shop.replies["/all"] = Reply(200, body=bytes(10**7))
        await mesh.topics.happen(page_view("e1"))
        tracemalloc.start()
        await eventually(lambda: _is(mesh.states(), {"delivered": 1}))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 5 * 10**6


@ONE_DATABASE
async def test_a_destination_that_hangs_delays_no_other(settings: Settings, resources: Resources, shop: Systems, file: Path) -> None:
    async with deliverer(settings, resources, file, table(shop.port, "hangs"), table(shop.port, "well")) as mesh, mesh.sending():
        shop.replies["/hangs"] = Reply(seconds=3.0)
        began = time()
        await mesh.topics.happen(*(page_view(f"e{number}") for number in range(50)))
        await eventually(lambda: _is(mesh.states("well"), {"delivered": 50}))
        assert time() - began < 3
        assert len(shop.received["/hangs"]) == 16


async def test_books_and_queues_are_read_from_indexes(settings: Settings, resources: Resources, shop: Systems, file: Path) -> None:
    async with deliverer(settings, resources, file, table(shop.port)) as mesh:
        await mesh.topics.happen(*(page_view(f"e{number}") for number in range(200)))
        own = (DeliveryRow.destination == "all", DeliveryRow.state == "pending")
        async with mesh.runtime.sessions.begin() as session:
            is_mysql = session.get_bind().dialect.name == "mysql"
            if is_mysql:
                await session.execute(text("ANALYZE TABLE deliveries"))
            for query, index in (
                (select(func.min(DeliveryRow.decided_at)).where(*own), "idx_deliveries_age"),
                (select(func.min(DeliveryRow.next_attempt_at)).where(*own), "idx_deliveries_due"),
                (select(DeliveryRow.id).where(*own).order_by(DeliveryRow.next_attempt_at, DeliveryRow.id).limit(16), "idx_deliveries_due"),
            ):
                sql = str(query.compile(session.get_bind(), compile_kwargs={"literal_binds": True}))
                plan = " ".join(map(str, (await session.execute(text(f"EXPLAIN {'' if is_mysql else 'QUERY PLAN '}{sql}"))).all()))
                assert index in plan or "optimized away" in plan, plan


@ONE_DATABASE
async def test_what_one_process_decides_wakes_the_senders_of_all_others(settings: Settings, resources: Resources, file: Path) -> None:
    async with deliverer(settings, resources, file) as mesh:
        woken: Counter[str] = Counter()
        here, there = (Waking(mesh.runtime.log.redis, partial(woken.update, [name])) for name in ("here", "there"))
        async with running(here.run()), running(there.run()):
            await until(lambda: woken == {"here": 1, "there": 1})  # what was signalled before they listened
            here.signal()
            await until(lambda: woken["there"] == 2)
            there.signal()
            await until(lambda: woken["here"] == 2)
        assert woken == {"here": 2, "there": 2}, "nobody wakes itself through Redis"


async def test_an_operator_pauses_resumes_tests_and_replays(settings: Settings, resources: Resources, shop: Systems, file: Path) -> None:
    async with (
        deliverer(settings, resources, file, table(shop.port), table(shop.port, "gone")) as mesh,
        serving(mesh.runtime) as channel,
        mesh.sending(),
    ):
        stub: Any = DestinationsServiceStub(channel)

        async def call(method: str, request: Any) -> Any:
            return await getattr(stub, method)(request, metadata=settings.mesh_metadata)

        assert (await call("TestDestination", pb.TestDestinationRequest(name="all"))).success
        shop.replies["/gone"] = Reply(410)
        tested = await call("TestDestination", pb.TestDestinationRequest(name="gone"))
        assert (tested.success, tested.detail) == (False, "HTTP 410: the receiver is gone")
        assert (await call("PauseDestination", pb.PauseDestinationRequest(name="all", reason="moving"))).changed
        await mesh.topics.happen(order(1), page_view("e1"))
        await asyncio.sleep(0.2)
        assert await mesh.states() == {"pending": 3}
        (listed, _) = (await call("ListDestinations", pb.ListDestinationsRequest())).destinations
        assert (listed.is_paused, listed.pause_reason, listed.books.due, listed.books.pending) == (True, "moving", 3, 3)
        assert (await call("ResumeDestination", pb.ResumeDestinationRequest(name="all"))).changed
        await eventually(lambda: _is(mesh.states(), {"delivered": 3}))
        found = (await call("ListDeliveries", pb.ListDeliveriesRequest(order_id="1"))).deliveries
        assert [(each.destination, each.name) for each in found if each.state == pb.DELIVERY_STATE_DELIVERED] == [
            ("all", "order.placed"),
            ("all", "order.paid"),
        ]
        async with mesh.runtime.sessions.begin() as session:
            await session.execute(delete(MessageRow).where(MessageRow.type == "pmp.ingestion.v1.EventStored"))
        for dry_run in (True, False):
            replayed = await call("ReplayDeliveries", pb.ReplayDeliveriesRequest(name="all", dry_run=dry_run))
            assert (replayed.replayed, replayed.gone) == (2, 1)
        await eventually(lambda: _is(mesh.states(), {"delivered": 3}))
        await until(lambda: sorted(shop.ids("/all").values()) == [1, 1, 2, 2])
        with pytest.raises(grpc.aio.AioRpcError, match="no destination nobody is configured; there are all, gone") as refused:
            await call("ReplayDeliveries", pb.ReplayDeliveriesRequest(name="nobody"))
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_dead_letters_are_listed_retried_and_dropped(settings: Settings, resources: Resources, shop: Systems, file: Path) -> None:
    async with deliverer(settings, resources, file, table(shop.port)) as mesh, serving(mesh.runtime) as channel, mesh.sending():
        stub: Any = DestinationsServiceStub(channel)

        async def call(method: str, **fields: Any) -> Any:
            request = getattr(pb, f"{method}Request")(name="all", **fields)
            return await getattr(stub, method)(request, metadata=settings.mesh_metadata)

        shop.replies["/all"] = Reply(400)
        await mesh.topics.happen(page_view("e1"), page_view("e2"))
        await eventually(lambda: _is(mesh.states(), {"dead": 2}))
        first, second = (await call("ListDeadDeliveries")).deliveries
        assert (first.detail, first.state) == ("HTTP 400", pb.DELIVERY_STATE_DEAD)
        assert (await call("DropDeadDeliveries", ids=[first.id])).dropped == 1
        shop.replies["/all"] = Reply(200)
        assert (await call("RetryDeadDeliveries")).retried == 1
        await eventually(lambda: _delivered(mesh, second.id))
        (listed,) = (await stub.ListDestinations(pb.ListDestinationsRequest(), metadata=settings.mesh_metadata)).destinations
        assert (listed.books.due, listed.books.delivered, listed.books.dead_lettered) == (2, 1, 1)
        assert not (await call("ListDeadDeliveries")).deliveries


@ONE_DATABASE
async def test_the_state_of_a_person_is_delivered_once_to_a_site_that_is_new(settings: Settings, resources: Resources, file: Path) -> None:
    site = '[site]\nkind = "wordpress"\nurl = "https://shop.example/users"\nsecret = "HOOK_SECRET"\n'
    async with deliverer(settings, resources, file, site) as mesh:
        old = stamp(NOW - timedelta(days=400))
        user = IdentityChanged(user=UserChanged(user_id="u1", wordpress_id=42, created_at=old, updated_at=old, historical=True))
        await mesh.topics.happen(user, IdentityChanged(alias=AliasChanged(subject="session:s1", user_id="u1", linked_at=old)))
        assert [(row.name, row.order_by, row.state) for row in await mesh.rows()] == [("user", "wordpress:42", "pending")]
        await mesh.topics.replay()
        assert len(await mesh.rows()) == 1


async def test_conflicts_are_recorded_once_sealed_listed_and_erased(settings: Settings, resources: Resources, file: Path) -> None:
    async with deliverer(settings, resources, file) as mesh, serving(mesh.runtime) as channel:
        stub: Any = ConflictsServiceStub(channel)

        async def record(payload: str, id_: str, user: str = "42") -> conflicts_pb2.RecordConflictResponse:
            body = HttpBody(data=payload.replace("wp-conflict-5f2c", id_).encode())
            request = conflicts_pb2.RecordConflictRequest(user_id=user, json_body=body)
            return await stub.RecordConflict(request, metadata=settings.mesh_metadata)

        async def listed(**fields: Any) -> conflicts_pb2.ListConflictsResponse:
            return await stub.ListConflicts(conflicts_pb2.ListConflictsRequest(**fields), metadata=settings.mesh_metadata)

        payload = (PAYLOADS / "destinations.RecordConflict.json").read_text()
        assert [(await record(payload, each)).duplicate for each in ("c-1", "c-2", "c-1")] == [False, False, True]
        assert not (await record(payload, "c-3", user="43")).duplicate
        first = await listed(page_size=2)
        second = await listed(page_size=2, page_token=first.next_page_token)
        assert [each.conflict.id for page in (first, second) for each in page.conflicts] == ["c-3", "c-2", "c-1"]
        assert not second.next_page_token
        own = [each for each in (await listed(user_id="42")).conflicts if each.conflict.id == "c-1"]
        assert [each.subject for each in own] == ["wordpress:42"]
        given = MessageToDict(own[0].conflict, preserving_proto_field_name=True)
        assert given == json.loads(payload) | {"id": "c-1"}
        async with mesh.runtime.sessions.reading() as session:
            rows = list(await session.scalars(select(ConflictRow)))
        assert not any(value in row.site_value + row.mesh_value for row in rows for value in (b"Ada", b"Augusta"))
        data = SubjectData(resources.database("destinations"), resources.keys, None, [CONFLICTS])
        assert (await data.erase(["wordpress:42"], "erased:1"))["conflicts"] == 2
        assert [each.conflict.id for each in (await listed()).conflicts] == ["c-3"]
        erased = SuppressionChanged(digest=digest(resources.keys.hasher, "wordpress:43"), erased_at=stamp(datetime.now(UTC)))
        await mesh.publish("gdpr", GdprChanged(suppression=erased))
        assert (await record(payload, "c-4", user="43")).duplicate, "nothing is stored of an erased person"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await record(payload, "c-5", user="0")
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_conflict_that_gdpr_finds_is_recorded_as_the_site_would_record_it(
    settings: Settings, resources: Resources, file: Path
) -> None:
    async with deliverer(settings, resources, file) as mesh, serving(mesh.runtime) as channel:
        site, other = (Choice(granted=granted, decided_at=stamp(NOW + timedelta(seconds=granted))) for granted in (True, False))
        found = [
            ConsentConflict(subject=subject, purpose="marketing_emails", site=site, mesh=other) for subject in ("wordpress:42", "user:ada")
        ]
        for subject in ("wordpress:42", "session:s1"):
            await mesh.publish("gdpr", GdprChanged(consent=ConsentChanged(subject=subject, marketing_emails=site, conflicts=found)))
        stub: Any = ConflictsServiceStub(channel)
        [listed] = (await stub.ListConflicts(conflicts_pb2.ListConflictsRequest(), metadata=settings.mesh_metadata)).conflicts
        own = listed.conflict
        assert (listed.subject, own.field, own.site_value, own.mesh_value, own.kept) == (
            "wordpress:42",
            "marketing_emails",
            "granted",
            "denied",
            "wordpress",
        )
        repeated = conflicts_pb2.RecordConflictRequest(user_id="42", conflict=own)
        assert (await stub.RecordConflict(repeated, metadata=settings.mesh_metadata)).duplicate, "the site has seen it as well"


async def test_a_site_that_is_connected_while_the_mesh_runs_is_delivered_what_happens_from_then_on(
    settings: Settings, resources: Resources, shop: Systems, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with deliverer(settings, resources, file) as mesh, serving(mesh.runtime) as channel:
        stub: Any = DestinationsServiceStub(channel)

        async def connect(path: str) -> bool:
            request = pb.ConnectSiteRequest(url=f"http://127.0.0.1:{shop.port}/{path}")
            return (await stub.ConnectSite(request, metadata=settings.mesh_metadata)).connected

        assert not await connect("site"), "nothing could sign the calls"
        monkeypatch.setenv("PMP_SITE_ERASURE_SECRET", SECRET)
        changed = [
            IdentityChanged(user=UserChanged(user_id=f"u{each}", wordpress_id=each, created_at=stamp(NOW), updated_at=stamp(NOW)))
            for each in (1, 2)
        ]
        await mesh.topics.happen(changed[0])
        assert await connect("site")
        await mesh.topics.happen(changed[1])
        assert [(row.destination, row.name, row.order_by) for row in await mesh.rows()] == [("wordpress", "user", "wordpress:2")]
        listed = (await stub.ListDestinations(pb.ListDestinationsRequest(), metadata=settings.mesh_metadata)).destinations
        assert [(each.name, each.is_configured, each.books.pending) for each in listed] == [("wordpress", True, 1)]
        for path in ("site", "moved"):
            assert await connect(path)
            await mesh.topics.happen(changed[0])
            await stub.TestDestination(pb.TestDestinationRequest(name="wordpress"), metadata=settings.mesh_metadata)
        assert [len(shop.received[f"/{path}"]) for path in ("site", "moved")] == [1, 1]
        assert shop.forged == 0
        async with mesh.sending():
            await eventually(lambda: _put_off(mesh))


async def test_an_erasure_asks_each_destination_until_it_answers(
    settings: Settings, resources: Resources, shop: Systems, file: Path
) -> None:
    wanted = {"all": "person.erased", "late": "person.*"}
    tables = [table(shop.port, name).replace('["event', f'["{types}", "event') for name, types in wanted.items()]
    async with (
        deliverer(settings, resources, file, *tables, table(shop.port, "never")) as mesh,
        serving(mesh.runtime) as channel,
        mesh.sending(),
    ):
        stub: Any = DestinationsServiceStub(channel)
        async with mesh.runtime.sessions.begin() as session:
            await Destinations(session).add({"former": "webhook"}, NOW)
            await session.execute(update(DestinationRow).where(DestinationRow.name == "former").values(delivered=1))
        request = pb.ErasePersonRequest(request="r1", names=["wordpress:42"], emails=["ada@example.org"])
        shop.replies["/late"] = Reply(503)
        first = await stub.ErasePerson(request, metadata=settings.mesh_metadata)
        assert not first.is_done
        shop.replies["/late"] = Reply(204)
        second = await stub.ErasePerson(request, metadata=settings.mesh_metadata)
        assert second.is_done
        assert {each.destination: each.answer for each in second.answers} == {
            "all": "deleted (HTTP 200)",
            "former": "is not configured any more: delete the person there by hand",
            "late": "deleted (HTTP 204)",
            "never": "offers no way to delete a person; nothing more is sent",
        }
        assert len(shop.received["/all"]) == 1
        assert len(shop.ids("/late")) == 1
        assert shop.received["/all"][0].content["data"] == {"identifiers": ["wordpress:42"], "emails": ["ada@example.org"]}


async def _put_off(mesh: Deliverer) -> bool:
    """Whether the site is sent to, as far as a mesh without identity goes."""
    return any("identity answers" in row.detail for row in await mesh.rows())


async def _delivered(mesh: Deliverer, id_: int) -> bool:
    return any(row.state == "delivered" for row in await mesh.rows() if row.id == id_)


async def _is(found: Any, expected: object) -> bool:
    return await found == expected


async def _attempted(mesh: Deliverer, count: int) -> bool:
    return (await mesh.state()).attempts == count


async def _all_attempted(mesh: Deliverer) -> bool:
    return all(row.detail for row in await mesh.rows())


async def _claimed(mesh: Deliverer, destination: str) -> int:
    return sum(bool(row.claim) for row in await mesh.rows() if row.destination == destination)


async def _opened(mesh: Deliverer, count: int) -> bool:
    return (await mesh.state()).opened == count


async def _paused(mesh: Deliverer) -> bool:
    return (await mesh.state()).is_paused
