"""Gdpr through a real channel, a real log and each kind of database."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from pmp.gdpr.v1 import gdpr_pb2 as pb
from pmp.gdpr.v1.change_pb2 import GdprChanged
from pmp.gdpr.v1.gdpr_pb2_grpc import GdprServiceStub
from pmp.identity.v1.change_pb2 import AliasChanged, IdentityChanged, MergeChanged
from pmp.log.v1 import log_pb2
from pydantic import SecretStr
from sqlalchemy import insert, text, update
from sqlalchemy.event import listen, listens_for, remove
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, transact
from kit.errors import Conflict, Unavailable
from kit.log.consume.consumer import Consumer
from kit.log.publish.outbox import prepare_heads
from kit.log.publish.relay import Relay
from kit.log.publish.state_topic import StateTopic
from kit.log.streams import START
from kit.people.derivation import configured_key
from kit.people.identifiers import identifier_of
from kit.people.persons import persons, project_identity
from kit.people.privacy import PURPOSES, Consent, Consents, person_consents, project_consent
from kit.people.signing import Signer
from kit.people.suppression import digest
from kit.rules import PageKey
from kit.service.resources import Resources
from kit.service.runtime import ServiceRuntime
from kit.settings import Settings
from kit.telemetry.setup import telemetry
from services.gdpr.archive import Archives
from services.gdpr.audit import faults
from services.gdpr.audit import link as link_after
from services.gdpr.calls import Calls
from services.gdpr.composition import ROLE, compose
from services.gdpr.deadlines import Deadlines, MetricName
from services.gdpr.holders import Holders
from services.gdpr.messages import TOPIC
from services.gdpr.models import ArchiveLinkRow, AuditRow, ConsentRow
from services.gdpr.repository import ArchiveLinks, Audit, ConsentHistory, PersonKey
from services.gdpr.saga import Saga
from services.gdpr.settings import GdprSettings
from tests.databases import newest_database
from tests.receiver import SECRET, Receiver, receiving
from tests.roles import serving, settings_for
from tests.servers import PrivateRedis, free_port

PAYLOAD = Path(__file__).parent.parent / "payloads" / "gdpr.UpdateConsent.json"
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
ANALYTICS = PURPOSES[0]


def at(seconds: float) -> str:
    """So many seconds after noon."""
    return (NOON + timedelta(seconds=seconds)).isoformat()


def states(consent: pb.ConsentState) -> tuple[str, ...]:
    return tuple(getattr(consent, purpose).state for purpose in PURPOSES)


def entered(entry: pb.ConsentEntry) -> tuple[str, str, datetime]:
    return (entry.purpose, entry.state, entry.timestamp.ToDatetime(UTC))


class Gdpr:
    """The service, and the topics around it step by step."""

    def __init__(self, runtime: ServiceRuntime, settings: GdprSettings, channel: grpc.aio.Channel) -> None:
        self.keys = runtime.keys
        self.settings = settings
        self.engine = runtime.database.engine
        self.sessions = runtime.sessions
        self.log = runtime.log
        self.partitions = settings.log_partitions
        self._token = ("x-pmp-mesh-token", settings.mesh_token.get_secret_value())
        self._stub: Any = GdprServiceStub(channel)

    def _metadata(self, scope: str, client: str = "shop") -> tuple[tuple[str, str], ...]:
        return (self._token, ("x-pmp-client", client), ("x-pmp-scope", scope))

    async def update(self, id_: str, *, scope: str = "site", client: str = "shop", **consent: Any) -> pb.UpdateConsentResponse:
        request = ParseDict({"id": id_, "consent": consent}, pb.UpdateConsentRequest())
        return await self._stub.UpdateConsent(request, metadata=self._metadata(scope, client))

    async def get(self, id_: str, *, scope: str = "site", **page: Any) -> pb.GetConsentResponse:
        return await self._stub.GetConsent(ParseDict({"id": id_, **page}, pb.GetConsentRequest()), metadata=self._metadata(scope))

    async def history(self, id_: str, page_size: int = 0) -> list[pb.ConsentEntry]:
        """All pages."""
        found: list[pb.ConsentEntry] = []
        token = ""
        while True:
            page = await self.get(id_, page_size=page_size, page_token=token)
            found += page.history
            token = page.next_page_token
            if not token:
                return found

    async def erase(self, id_: str = "", *, email: str = "", scope: str = "site", dry_run: bool = False) -> pb.EraseUserDataResponse:
        request = pb.EraseUserDataRequest(id=id_, email=email, dry_run=dry_run)
        return await self._stub.EraseUserData(request, metadata=self._metadata(scope))

    async def export(self, id_: str) -> pb.SubjectRequest:
        return (await self._stub.ExportUserData(pb.ExportUserDataRequest(id=id_), metadata=self._metadata("site"))).request

    async def download(self, request: pb.SubjectRequest, *, client: str = "shop") -> dict[str, Any]:
        """The archive that the link of a request leads to."""
        asked = pb.DownloadArchiveRequest(id=request.id, token=request.download.path.partition("token=")[2])
        return json.loads(
            b"".join([part.data async for part in self._stub.DownloadArchive(asked, metadata=self._metadata("site", client))])
        )

    def archives(self, **addresses: str) -> Archives:
        """Those of another process; other holders are at these addresses."""
        settings = self.settings.model_copy(update={"service_addresses": {**self.settings.service_addresses, **addresses}})
        return Archives(self.sessions, self.keys, Holders(settings, [TOPIC, *addresses]), "shop")

    async def done(self) -> list[str]:
        """What the audit log says was done."""
        async with self.sessions() as session:
            chain = await Audit(session).chain()
        assert faults(chain, [], lambda _document, _signature: False) == []
        return [json.loads(each.entry)["action"] for each in chain]

    async def request(self, id_: str) -> pb.SubjectRequest:
        return (await self._stub.GetSubjectRequest(pb.GetSubjectRequestRequest(id=id_), metadata=self._metadata("site"))).request

    async def work(self, **addresses: str) -> None:
        """What a new process does until there is nothing to do for now; other holders are at these addresses."""
        settings = self.settings.model_copy(update={"service_addresses": {**self.settings.service_addresses, **addresses}})
        holders, topic = Holders(settings, [TOPIC, *addresses]), StateTopic(TOPIC, self.partitions)
        signer, calls = Signer(configured_key(settings)), Calls(settings)
        await Saga(self.sessions, topic, self.keys, holders, signer=signer, calls=calls, rewrite=self.log.rewrite).work()
        await self.relay(TOPIC)

    async def relay(self, topic: str) -> None:
        relay = Relay(self.sessions, self.log, topic, keep=timedelta(hours=1))
        for partition in range(self.partitions):
            while await relay.step(partition):
                pass

    async def published(self) -> dict[str, list[GdprChanged]]:
        """The changes in the topic by identifier, once all that was committed is published."""
        await self.relay(TOPIC)
        return await self.in_log()

    async def in_log(self) -> dict[str, list[GdprChanged]]:
        """The consent that holders read of each identifier now."""
        found: dict[str, list[GdprChanged]] = {}
        for partition in range(self.partitions):
            for entry in await self.log.read(TOPIC, partition, START, limit=1000, block_ms=1):
                for record in log_pb2.Pack.FromString(entry.pack).records:
                    assert record.type == "pmp.gdpr.v1.GdprChanged"
                    change = GdprChanged.FromString(record.payload)
                    found.setdefault(change.consent.subject, []).append(change)
        return found

    async def changes(self) -> list[GdprChanged]:
        """The topic's history."""
        found: list[GdprChanged] = []
        for partition in range(self.partitions):
            async for answer in self._stub.ListGdprChanges(pb.ListGdprChangesRequest(partition=partition), metadata=(self._token,)):
                found += answer.changes
        return found

    async def identify(self, *changes: IdentityChanged) -> None:
        """Publishes changes on the topic of identity, and projects them."""
        topic = StateTopic("identity", self.partitions)

        async def publish(session: AsyncSession) -> None:
            await topic.publish(session, [(change.alias.subject or change.merge.merged_user_id, change) for change in changes])

        await transact(self.sessions, publish)
        await self.relay("identity")
        consumer = Consumer(self.sessions, self.log, "identity", project_identity)
        for partition in range(self.partitions):
            while await consumer.step(partition, block_ms=1):
                pass


@pytest.fixture
def system() -> Iterator[Receiver]:
    """Another system that has to erase persons."""
    with receiving() as system:
        yield system


@pytest.fixture
async def gdpr(settings: Settings, resources: Resources, system: Receiver) -> AsyncIterator[Gdpr]:
    address = f"127.0.0.1:{free_port()}"
    own = settings_for(
        ROLE,
        settings,
        listen=address,
        service_addresses={TOPIC: address},
        site_erasure_calls={"crm": system.url},
        site_erasure_secret=SecretStr(SECRET),
    )
    async with newest_database(settings, TOPIC):
        runtime = compose(own, resources, holders=[TOPIC])
        async with serving(runtime) as channel:
            await prepare_heads(runtime.sessions, "identity", own.log_partitions)
            yield Gdpr(runtime, own, channel)


def link(subject: str, user: str, *, withdrawn: bool = False) -> IdentityChanged:
    return IdentityChanged(alias=AliasChanged(subject=subject, user_id=user, linked_at=Timestamp(seconds=1), withdrawn=withdrawn))


def merge(merged: str, into: str, *, undone: bool = False) -> IdentityChanged:
    return IdentityChanged(merge=MergeChanged(user_id=into, merged_user_id=merged, undone=undone))


async def test_the_golden_payload_is_kept_with_every_field(gdpr: Gdpr) -> None:
    payload = json.loads(PAYLOAD.read_text())
    assert set(payload) == set(pb.Consent.DESCRIPTOR.fields_by_name)
    answer = await gdpr.update("42", **payload)
    assert (answer.success, answer.duplicate, answer.user_id) == (True, False, "42")
    shown = await gdpr.get("0042")
    assert shown.consent == answer.consent
    assert states(shown.consent) == ("granted", "granted", "denied")
    sharing = shown.consent.third_party_sharing
    assert (sharing.since.ToJsonString(), sharing.source, sharing.policy_version) == ("2026-11-22T10:15:30Z", "banner", "2026-11")
    assert {entry.purpose: entry.state for entry in shown.history} == dict(zip(PURPOSES, ("granted", "granted", "denied"), strict=True))
    for entry in shown.history:
        assert (entry.subject, entry.client, entry.source, entry.policy_version) == ("wordpress:42", "shop", "banner", "2026-11")
        assert abs(entry.recorded_at.ToDatetime(UTC) - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_person_of_whom_nothing_was_reported_has_chosen_nothing(gdpr: Gdpr) -> None:
    shown = await gdpr.get("session:never-seen")
    assert states(shown.consent) == ("unknown",) * 3
    assert (shown.user_id, list(shown.history), shown.next_page_token) == ("session:never-seen", [], "")


async def test_a_purpose_that_is_not_given_stays_as_it_is(gdpr: Gdpr) -> None:
    await gdpr.update("42", analytics_tracking=True, timestamp=at(0))
    await gdpr.update("42", marketing_emails=False, timestamp=at(1))
    assert states((await gdpr.get("42")).consent) == ("granted", "denied", "unknown")


async def test_whatever_arrives_first_the_choice_made_last_is_in_force_and_denial_wins_a_tie(gdpr: Gdpr) -> None:
    choices = [(5, False), (9, True), (9, False)]
    for number, order in enumerate(permutations(choices)):
        user = f"user-{number}"
        for seconds, granted in order:
            await gdpr.update(user, analytics_tracking=granted, timestamp=at(seconds))
        shown = await gdpr.get(user)
        state = shown.consent.analytics_tracking
        assert (state.state, state.since.ToDatetime(UTC)) == ("denied", NOON + timedelta(seconds=9))
        assert sorted((entry.timestamp.ToDatetime(UTC), entry.state) for entry in shown.history) == sorted(
            (NOON + timedelta(seconds=seconds), "granted" if granted else "denied") for seconds, granted in choices
        )


async def test_a_choice_from_the_future_counts_as_made_now(gdpr: Gdpr) -> None:
    ahead = (datetime.now(UTC) + timedelta(hours=23)).isoformat()
    await gdpr.update("42", analytics_tracking=True, timestamp=ahead)
    assert states((await gdpr.update("42", analytics_tracking=False)).consent)[0] == "denied"


async def test_choices_of_the_site_and_of_others_that_were_made_unknown_to_each_other_are_a_conflict(gdpr: Gdpr) -> None:
    await gdpr.identify(link("wordpress:42", "ada"), link("session:s1", "ada"))
    await gdpr.update("session:s1", client="crm", marketing_emails=True, analytics_tracking=True, timestamp=at(0))
    for _ in range(2):
        await gdpr.update("42", marketing_emails=False, analytics_tracking=True, timestamp=at(10))
    await gdpr.update("42", marketing_emails=True, timestamp=at(5))
    await gdpr.update("42", client="crm", third_party_sharing=True, timestamp=at(20))
    await gdpr.update("42", third_party_sharing=False)
    await gdpr.update("42", client="crm", marketing_emails=True, timestamp=at(3))
    found = [conflict for changes in (await gdpr.published()).values() for change in changes for conflict in change.consent.conflicts]
    assert [(each.subject, each.purpose) for each in found] == [("wordpress:42", "marketing_emails")] * 2
    times = [(each.site.granted, each.site.decided_at.ToDatetime(UTC), each.mesh.decided_at.ToDatetime(UTC)) for each in found]
    assert times == [(False, NOON + timedelta(seconds=10), NOON + timedelta(seconds=other)) for other in (0, 3)]


async def test_the_same_choices_reported_at_the_same_time_by_many_are_published_once(gdpr: Gdpr) -> None:
    answers = await asyncio.gather(
        *(gdpr.update("42", analytics_tracking=True, marketing_emails=False, timestamp=at(0)) for _ in range(20))
    )
    assert [answer.duplicate for answer in answers].count(False) == 1
    assert len(await gdpr.history("42")) == 2
    assert len((await gdpr.published())["wordpress:42"]) == 1


async def test_the_history_is_exact_under_updates_at_the_same_time(gdpr: Gdpr) -> None:
    sent = [(number, purpose, number % 3 == 0) for number in range(12) for purpose in PURPOSES[: 1 + number % 3]]
    await asyncio.gather(
        *(gdpr.update("42", timestamp=at(number), **dict[str, Any]({purpose: granted})) for number, purpose, granted in reversed(sent))
    )
    history = await gdpr.history("42", page_size=7)
    expected = [(purpose, "granted" if granted else "denied", NOON + timedelta(seconds=number)) for number, purpose, granted in sent]
    assert sorted(map(entered, history)) == sorted(expected)
    times = [entry.timestamp.ToDatetime(UTC) for entry in history]
    assert times == sorted(times, reverse=True)
    consent = (await gdpr.get("42")).consent
    newest = (await gdpr.published())["wordpress:42"][-1].consent
    for purpose in PURPOSES:
        state, choice = getattr(consent, purpose), getattr(newest, purpose)
        assert (state.state == "granted", state.since) == (choice.granted, choice.decided_at)
        made = [(at_, state_) for purpose_, state_, at_ in expected if purpose_ == purpose]
        assert (state.since.ToDatetime(UTC), state.state) == max(made)


async def test_what_was_answered_is_in_the_log_and_takes_effect_without_its_answerer(gdpr: Gdpr) -> None:
    for _ in range(2):
        await gdpr.update("42", analytics_tracking=False, timestamp=at(0))
        assert len((await gdpr.in_log())["wordpress:42"]) == 1
    await gdpr.erase("77")
    [suppressed] = (await gdpr.in_log())[""]
    assert suppressed.suppression.digest == digest(gdpr.keys.hasher, "wordpress:77")
    assert await gdpr.published() == await gdpr.in_log(), "nothing is left for the relay"


async def test_what_the_log_does_not_take_is_answered_as_not_yet_in_force_and_takes_effect_when_repeated(
    gdpr: Gdpr, redis_server: PrivateRedis
) -> None:
    redis_server.hang()
    calls = [gdpr.update("42", analytics_tracking=False, timestamp=at(0)), gdpr.erase("77")]
    try:
        answers = await asyncio.gather(*calls, return_exceptions=True)
    finally:
        redis_server.go_on()
    for answer in answers:
        assert isinstance(answer, grpc.aio.AioRpcError)
        assert answer.code() is grpc.StatusCode.UNAVAILABLE
        assert answer.details() == "recorded, but not yet in force: the log does not answer; try again"
    again = await gdpr.update("42", analytics_tracking=False, timestamp=at(0))
    assert (again.duplicate, len(await gdpr.history("42"))) == (True, 1)
    assert (await gdpr.erase("77")).request.id == (await gdpr.erase("77")).request.id
    assert {identifier: len(changes) for identifier, changes in (await gdpr.in_log()).items()} == {"wordpress:42": 1, "": 1}


async def test_a_visitors_choice_is_carried_over_and_leaves_again(gdpr: Gdpr) -> None:
    await gdpr.update("session:s1", analytics_tracking=False, source="banner", timestamp=at(5))
    await gdpr.update("anonymous:a1", marketing_emails=True, timestamp=at(6))
    await gdpr.update("u1", analytics_tracking=True, timestamp=at(0))
    await gdpr.identify(link("session:s1", "u1"), link("anonymous:a1", "u1"), link("wordpress:42", "u1"))
    for name in ("u1", "42", "session:s1"):
        shown = await gdpr.get(name)
        assert shown.user_id == "u1"
        assert states(shown.consent) == ("denied", "granted", "unknown")
        assert [entry.subject for entry in shown.history] == ["anonymous:a1", "session:s1", "user:u1"]
    await gdpr.identify(link("session:s1", "u1", withdrawn=True))
    assert states((await gdpr.get("u1")).consent) == ("granted", "granted", "unknown")
    assert states((await gdpr.get("session:s1")).consent) == ("denied", "unknown", "unknown")


async def test_merged_users_share_their_choices_until_the_merge_is_undone(gdpr: Gdpr) -> None:
    await gdpr.update("one", analytics_tracking=True, timestamp=at(0))
    await gdpr.update("two", analytics_tracking=False, timestamp=at(1))
    await gdpr.identify(link("session:x", "one"), link("session:y", "two"))
    await gdpr.identify(merge("two", "one"))
    assert [states((await gdpr.get(name)).consent)[0] for name in ("one", "two", "session:y")] == ["denied"] * 3
    assert len(await gdpr.history("one", page_size=1)) == 2
    await gdpr.identify(merge("two", "one", undone=True))
    assert [states((await gdpr.get(name)).consent)[0] for name in ("one", "two")] == ["granted", "denied"]


async def test_a_holder_knows_what_is_in_force_whether_it_followed_or_starts_with_the_history(gdpr: Gdpr, settings: Settings) -> None:
    for number in range(30):
        await gdpr.update(f"session:s{number % 7}", analytics_tracking=number % 2 == 0, timestamp=at(number * 37 % 30))
    published = await gdpr.published()
    newest = {subject: changes[-1] for subject, changes in published.items()}
    assert {change.consent.subject: change for change in await gdpr.changes()} == newest
    async with newest_database(settings, "ingestion") as holder:
        consumer = Consumer(holder.sessions, gdpr.log, TOPIC, project_consent)
        for partition in range(gdpr.partitions):
            while await consumer.step(partition, block_ms=1):
                pass
        followed = await _known(holder.sessions, newest)

        async def replay(session: AsyncSession) -> None:
            await Consents(session).apply(change.consent for changes in published.values() for change in changes[:-1])

        await transact(holder.sessions, replay)
        assert await _known(holder.sessions, newest) == followed
    for subject, consent in followed.items():
        state = (await gdpr.get(subject)).consent.analytics_tracking
        choice = consent.analytics_tracking
        assert choice is not None
        assert (choice.granted, choice.decided_at) == (state.state == "granted", state.since.ToDatetime(UTC))


async def _known(sessions: Sessions, subjects: Any) -> dict[str, Consent]:
    async with sessions() as session:
        return dict(await Consents(session).of(list(subjects)))


@pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
async def test_nothing_is_found_by_reading_a_table_from_end_to_end(gdpr: Gdpr) -> None:
    identifiers = [f"session:s{number}" for number in range(3000)]
    same = {"purpose": ANALYTICS, "granted": True, "decided_at": NOON, "source": "form", "client": "shop", "recorded_at": NOON}
    async with gdpr.sessions.begin() as session:
        await session.execute(
            insert(persons), [{"subject": each, "person_id": f"u{number // 3}"} for number, each in enumerate(identifiers)]
        )
        await session.execute(insert(person_consents), [{"subject": each} for each in identifiers])
        rows = [{"subject": each, "policy_version": version, **same} for each in identifiers for version in ("1", "2")]
        await session.execute(insert(ConsentRow), rows)
    async with gdpr.sessions.begin() as session:
        await session.execute(text("ANALYZE TABLE persons, person_consents, consents"))
        asked: list[tuple[str, Any]] = []
        connection = await session.connection()

        @listens_for(connection.sync_connection, "before_cursor_execute")
        def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
            asked.append((statement, parameters))

        await Consents(session).of(["session:stranger", *identifiers[:20]])
        for person in (PersonKey(identifiers[0], "u0"), PersonKey(identifiers[0])):
            await ConsentHistory(session).in_force(person)
            await ConsentHistory(session).page(person, PageKey(NOON, 9), 100)
        remove(connection.sync_connection, "before_cursor_execute", note)
        assert len(asked) == 6
        for statement, parameters in asked:
            plan = [dict(row) for row in (await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)).mappings()]
            whole = [step for step in plan if step["type"] in {"ALL", "index"} and not str(step["table"]).startswith("<")]
            assert not whole, (statement, plan)


class Killed(BaseException):
    """The end of a process, which catches nothing and writes nothing any more."""


@contextmanager
def dying(gdpr: Gdpr) -> Generator[set[tuple[str, Any]]]:
    """A process that has done a step, or a request, dies before it has written so, each time once; holds what it died at."""
    deaths: set[tuple[str, Any]] = set()

    def die(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if statement.startswith(("UPDATE request_steps", "UPDATE subject_requests")) and "done" in parameters:
            death = (statement.split()[1], parameters[-1])
            if death not in deaths:
                deaths.add(death)
                raise Killed

    listen(gdpr.engine.sync_engine, "before_cursor_execute", die)
    try:
        yield deaths
    finally:
        remove(gdpr.engine.sync_engine, "before_cursor_execute", die)


async def test_an_erasure_that_dies_after_every_step_goes_on_from_what_is_written_down(gdpr: Gdpr) -> None:
    await gdpr.update("session:s1", analytics_tracking=True)
    await gdpr.update("u1", marketing_emails=True)
    await gdpr.update("somebody-else", marketing_emails=True)
    await gdpr.identify(link("session:s1", "u1"), link("wordpress:42", "u1"), merge("u2", "u1"))
    answers = await asyncio.gather(*(gdpr.erase(name) for name in ("42", "u1", "u2", "session:s1")))
    (request,) = {answer.request.id for answer in answers}
    seen: list[list[str]] = []
    with dying(gdpr) as deaths:
        while (shown := await gdpr.request(request)).state != "done":
            seen.append([step.state for step in shown.steps])
            assert len(seen) < 5000
            with suppress(Killed):
                await gdpr.work()
    assert len(deaths) == len(shown.steps) + 1
    assert [(step.state, step.failures) for step in shown.steps] == [("done", 0)] * len(shown.steps)
    assert all(sorted(several) == several for several in seen), "one step after the other"
    tables = {table.table: table.rows for step in shown.steps for table in step.tables}
    assert (tables["consents"], tables["person_consents"]) == (2, 2)
    async with gdpr.sessions() as session:
        entries = [json.loads(each.entry)["action"] for each in await Audit(session).chain()]
        assert (entries, len(await Audit(session).receipts())) == (["erasure asked", "erasure done"], 1)
    assert (await gdpr.erase("42")).request == shown
    assert [change.consent.subject for change in await gdpr.changes() if change.HasField("consent")] == ["user:somebody-else"]
    held = [change.suppression.digest for change in await gdpr.changes() if change.HasField("suppression")]
    assert len(set(held)) == 4
    answer = await gdpr.update("session:s1", analytics_tracking=True)
    assert (answer.success, states(answer.consent)) == (True, ("unknown",) * 3)


def test_a_service_that_is_not_there_keeps_gdpr_from_starting() -> None:
    settings = {
        "MESH_TOKEN": "token",
        "VAULT_KEY": "key",
        "KEY_ENCRYPTION_KEYS": "key",
        "DATABASE_URL": "none",
        "REDIS_URL": "none",
        "SITE_RETENTION_TABLES": '{"shop.x": "P1D"}',
    }
    environment = {**os.environ, **{f"PMP_{name}": value for name, value in settings.items()}}
    ran = subprocess.run([sys.executable, "-m", "services", "gdpr"], env=environment, check=False, capture_output=True, text=True)
    assert (ran.returncode, "there is no service shop" in ran.stderr) == (2, True), ran.stderr


async def test_entries_of_the_audit_log_that_come_at_the_same_time_follow_one_another(gdpr: Gdpr) -> None:
    requests = {(await each).request.id for each in asyncio.as_completed([gdpr.erase(f"{number}") for number in range(1, 6)])}
    async with gdpr.sessions() as session:
        chain = await Audit(session).chain()
    assert faults(chain, [], lambda _document, _signature: False) == []
    assert {json.loads(each.entry)["request"] for each in chain} == requests
    assert len(chain) == 5


async def test_no_two_entries_of_the_audit_log_can_follow_the_same_one(gdpr: Gdpr) -> None:
    async with gdpr.sessions.begin() as session:
        for number in range(2):
            await Audit(session).append({"action": f"{number}"})
    async with gdpr.sessions() as session:
        first, second = await Audit(session).chain()
    for rival in (link_after(first, {"action": "rival"}), link_after(None, {"action": "rival"})):
        with pytest.raises(IntegrityError):
            async with gdpr.sessions.begin() as session:
                await session.execute(insert(AuditRow), rival._replace(number=second.number + 1)._asdict())


async def test_a_count_of_what_would_go_leaves_no_trace(gdpr: Gdpr) -> None:
    await gdpr.update("42", analytics_tracking=True)
    (would_go,) = (await gdpr.erase("42", dry_run=True)).would_go
    assert {table.table: table.rows for table in would_go.tables} == {"consents": 1, "person_consents": 1}
    assert states((await gdpr.get("42")).consent)[0] == "granted"
    assert [change for change in await gdpr.changes() if change.HasField("suppression")] == []


async def test_a_holder_that_is_down_is_waited_for_and_named(gdpr: Gdpr) -> None:
    request = (await gdpr.erase("42")).request.id
    for _ in range(2):
        await gdpr.work(ingestion="127.0.0.1:1")
    (step, *others) = (await gdpr.request(request)).steps
    assert (step.state, step.failures, step.error) == ("waiting", 1, "ingestion answers UNAVAILABLE")
    assert {other.state for other in others} == {"waiting"}


async def test_an_erasure_ends_when_every_other_system_was_called(gdpr: Gdpr, system: Receiver) -> None:
    await gdpr.identify(link("wordpress:42", "u1"), link("session:s1", "u1"))
    system.status = 503
    request = (await gdpr.erase("42")).request.id
    steps: dict[str, pb.RequestStep] = {}
    while not steps or not steps["call crm"].failures:
        await gdpr.work()
        steps = {step.name: step for step in (await gdpr.request(request)).steps}
    assert (steps["rewrite"].state, steps["call crm"].state, steps["call crm"].error) == ("done", "waiting", "crm answers 503")
    system.status = 204
    while (await gdpr.request(request)).state != "done":
        await gdpr.work()
    assert set(system.ids) == {f"{request}-crm"}
    assert (system.received[-1]["data"]["wordpress_user_ids"], system.received[-1]["data"]["session_ids"]) == (["42"], ["s1"])


async def test_a_person_without_an_account_is_erased_by_an_address_and_so_is_the_next_owner_of_the_address(gdpr: Gdpr) -> None:
    hasher = gdpr.keys.hasher
    subject = identifier_of(email_hash=hasher.fingerprint("ada@example.org"))
    await gdpr.identify(link(subject, "u1"), link("session:s1", "u1"))
    request = (await gdpr.erase(email="Ada@Example.ORG")).request.id
    assert (await gdpr.erase("session:s1")).request.id == request
    while (await gdpr.request(request)).state != "done":
        await gdpr.work()
    assert (await gdpr.erase(email="ada@example.org")).request.id == request, "nobody else has it"
    await gdpr.identify(link(subject, "u2"), link("session:s2", "u2"))
    again = (await gdpr.erase(email="ada@example.org")).request.id
    assert again != request
    assert (await gdpr.erase("session:s2")).request.id == again


async def test_a_request_is_for_one_name(gdpr: Gdpr) -> None:
    refused: list[dict[str, Any]] = [{}, {"id_": "42", "email": "ada@example.org"}, {"email": "nobody"}]
    for identifiers in refused:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await gdpr.erase(**identifiers)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_operators_see_how_long_the_law_gives_and_what_does_not_end(gdpr: Gdpr) -> None:
    reader, now = InMemoryMetricReader(), datetime.now(UTC)
    with telemetry(gdpr.settings, TOPIC, readers=[reader]):
        deadlines = Deadlines(gdpr.sessions, gdpr.keys.hasher)

        async def seen(at_: datetime) -> tuple[float, float]:
            await deadlines.look(at_)
            metrics: Any = reader.get_metrics_data()
            points = {metric.name: metric.data.data_points[0].value for metric in metrics.resource_metrics[0].scope_metrics[0].metrics}
            return points[MetricName.REQUEST_LEFT] / 86400, points[MetricName.STEPS_OVERDUE]

        assert await seen(now) == (30, 0)
        await gdpr.erase("42")
        await gdpr.work(ingestion="127.0.0.1:1")
        assert await seen(now + timedelta(minutes=9)) == (pytest.approx(30, abs=0.1), 0)
        assert await seen(now + timedelta(days=29)) == (pytest.approx(1, abs=0.1), 1)


async def test_a_request_is_shown_to_its_requester_alone(gdpr: Gdpr) -> None:
    for scope in ("track", "read"):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await gdpr.erase("42", scope=scope)
        assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gdpr.request("019aaaaa-0000-7000-8000-000000000000")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_an_archive_holds_all_of_a_person_with_thousands_of_identifiers_once(gdpr: Gdpr) -> None:
    identifiers = [f"session:s{number}" for number in range(2500)]
    same = {"purpose": ANALYTICS, "granted": True, "source": "form", "policy_version": "1", "client": "shop", "recorded_at": NOON}
    async with gdpr.sessions.begin() as session:
        await session.execute(insert(persons), [{"subject": each, "person_id": "u1"} for each in identifiers])
        await session.execute(
            insert(ConsentRow), [{"subject": each, "decided_at": NOON, **same} for each in [*identifiers, "session:other"]]
        )
    shown = (await gdpr.download(await gdpr.export("session:s7")))["consents"]["consents"]
    assert sorted(row["subject"] for row in shown) == sorted(identifiers)


async def test_concurrent_requests_share_one_link_and_one_of_many_fetches_it(gdpr: Gdpr) -> None:
    await gdpr.update("42", analytics_tracking=True)
    asked = await asyncio.gather(*(gdpr.export("42") for _ in range(5)))
    assert len({request.id for request in asked}) == 1
    answers = await asyncio.gather(*(gdpr.download(asked[0]) for _ in range(5)), return_exceptions=True)
    refused = [answer.code() for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert set(refused) <= {grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.NOT_FOUND}
    assert len(refused) == 4
    assert await gdpr.done() == ["export asked", "export done"]


async def test_another_calling_system_fetches_nothing(gdpr: Gdpr) -> None:
    request = await gdpr.export("42")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gdpr.download(request, client="another-shop")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert (await gdpr.download(request))["complete"]


async def test_a_fetch_that_was_taken_for_dead_does_not_end(gdpr: Gdpr) -> None:
    request = await gdpr.export("42")
    slow = gdpr.archives().fetch(request.id)
    await anext(slow)
    with pytest.raises(Conflict):
        await anext(gdpr.archives().fetch(request.id))
    async with gdpr.sessions.begin() as session:
        await session.execute(update(ArchiveLinkRow).values(held_until=NOON))
    assert (await gdpr.download(request))["complete"]
    with pytest.raises(Conflict):
        await anext(slow)
    assert await gdpr.done() == ["export asked", "export done"]


async def test_while_a_holder_is_down_there_is_no_archive_and_the_link_stays(gdpr: Gdpr) -> None:
    request = await gdpr.export("42")
    with pytest.raises(Unavailable, match="ingestion answers UNAVAILABLE"):
        await anext(gdpr.archives(ingestion="127.0.0.1:1").fetch(request.id))
    assert (await gdpr.download(request))["complete"]


async def test_a_link_that_expires_leaves_nothing_that_identifies_its_person(gdpr: Gdpr) -> None:
    request = await gdpr.export("42")
    async with gdpr.sessions.begin() as session:
        assert await ArchiveLinks(session).expire(datetime.now(UTC)) == 0
        assert await ArchiveLinks(session).expire(request.download.expires_at.ToDatetime(UTC) + timedelta(seconds=1)) == 1
    assert not (await gdpr.request(request.id)).HasField("download")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gdpr.download(request)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("42", {}, "consent"),
    ("42", {"analytics_tracking": True, "source": "guess"}, "consent.source"),
    ("42", {"analytics_tracking": True, "policy_version": "a b"}, "consent.policy_version"),
    ("42", {"analytics_tracking": True, "timestamp": (datetime.now(UTC) + timedelta(days=2)).isoformat()}, "consent.timestamp"),
    ("", {"analytics_tracking": True}, "id"),
    *((nobody, {"analytics_tracking": True}, "id") for nobody in ("0", "000", "null", "undefined", "session:NaN", "anonymous:-")),
    ("ada@example.org", {"analytics_tracking": True}, "id"),
    ("session:", {"analytics_tracking": True}, "id"),
    ("wordpress:42", {"analytics_tracking": True}, "id"),
    ("email:ab", {"analytics_tracking": True}, "id"),
    ("x" * 266, {"analytics_tracking": True}, "id"),
]


async def test_a_broken_rule_names_its_field_and_nothing_is_kept(gdpr: Gdpr) -> None:
    for id_, consent, field in REFUSED:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await gdpr.update(id_, **consent)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        bad = BadRequest()
        details = dict(raised.value.trailing_metadata() or ())["grpc-status-details-bin"]
        assert Status.FromString(details).details[0].Unpack(bad)  # pyright: ignore[reportArgumentType]
        assert field in {violation.field for violation in bad.field_violations}
    assert await gdpr.published() == {}


async def test_nobody_is_erased_exported_or_asked_for(gdpr: Gdpr) -> None:
    for nobody in ("0", "None", "session:undefined", "00000000-0000-0000-0000-000000000000"):
        for call in (gdpr.erase(nobody), gdpr.erase(nobody, dry_run=True), gdpr.export(nobody), gdpr.get(nobody)):
            with pytest.raises(grpc.aio.AioRpcError, match="id stands for nobody"):
                await call
    assert await gdpr.done() == []


async def test_a_page_token_that_no_page_ended_with_is_refused(gdpr: Gdpr) -> None:
    for token in ("x", "bm9uZQ==", "MQ==", "99999999999999999999999"):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await gdpr.get("42", page_token=token)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_only_the_shops_server_and_an_administrator_may_ask_and_report(gdpr: Gdpr) -> None:
    for scope in ("track", "read"):
        for call in (gdpr.get("42", scope=scope), gdpr.update("42", scope=scope, analytics_tracking=True)):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call
            assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert (await gdpr.update("42", scope="admin", analytics_tracking=True)).success
