"""A mesh as who operates it sees it: the spans of one event in `pmp trace`, and what `pmp doctor` finds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner, Result

from cli.__main__ import app
from cli.destinations import operate
from cli.disk import Disk
from cli.doctor import backups, certificates, clocks, disk, keys, log, processes, rates, schema, strength
from cli.doctor import destinations as destination_checks
from cli.doctor import redis as redis_checks
from cli.doctor.examination import CHECKS, run
from cli.doctor.findings import Check, Checked
from cli.doctor.subject import Subject, examined
from cli.folder import DataFolder
from cli.local_secrets import Secrets
from cli.traces.files import SpanFiles
from cli.traces.spans import Span
from kit.log.ages import BACKED_UP
from kit.log.redis.opening import open_log
from kit.telemetry.version import installed_version
from tests.e2e.mesh import Mesh, running
from tests.e2e.test_gateway_tls import issue
from tests.servers import free_port, until
from tests.vendor import Unchanging, serving
from tests.webhooks import SECRET

PERSONAL = ("ada@example.org", "203.0.113.77", "visitor-42", "secret-session")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
OTHER_KEY = "b3RoZXIga2V5IG90aGVyIGtleSBvdGhlciBrZXkgb3Q="


@pytest.fixture(scope="module")
def crm() -> Iterator[str]:
    """URL of a system that accepts every webhook."""
    with serving(double := Unchanging()):
        yield f"{double.url}/"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, crm: str) -> Iterator[Mesh]:
    """With a destination, a certificate, and its spans kept."""
    folder = tmp_path_factory.mktemp("operated")
    (folder / "certificates").mkdir()
    issue(folder / "certificates", 30)
    file = folder / "destinations.toml"
    file.write_text(
        f'[crm]\nkind = "webhook"\nurl = "{crm}"\nsecrets = ["CRM_SECRET"]\nconsent = "none"\n'
        'allow_private_networks = true\ntypes = ["event.page_view"]\n'
    )
    environment = {
        "PMP_DESTINATIONS": str(file),
        "CRM_SECRET": SECRET,
        "PMP_GATEWAY_TLS_LISTEN": f"127.0.0.1:{free_port()}",
        "PMP_GATEWAY_CERTIFICATES": str(folder / "certificates"),
        "PMP_LOG_MAX_BYTES": "200000000",
    }
    with running(folder / "data", "--traces", environment=environment) as mesh:
        yield mesh


def call(mesh: Mesh, path: str, body: dict[str, Any], **headers: str) -> None:
    answer = mesh.client.post(f"{mesh.url}/api/v1/{path}", headers={**mesh.credentials("site", "visitor-42"), **headers}, json=body)
    assert answer.status_code == 200, answer.text


def pmp(mesh: Mesh, *arguments: str, **environment: str) -> Result:
    """Runs a command in this process."""
    return CliRunner().invoke(app, arguments, env={"PMP_DATA": str(mesh.data), **environment})


def page_view(**fields: str) -> dict[str, str]:
    return {"id": str(uuid4()), "event_type": "page_view", "timestamp": datetime.now(UTC).isoformat(), **fields}


def sql(mesh: Mesh, service: str, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(mesh.data / f"{service}.db", timeout=10)) as connection, connection:
        connection.execute(statement, values)


@asynccontextmanager
async def examining(mesh: Mesh) -> AsyncGenerator[Subject]:
    async with examined(DataFolder(mesh.data)) as subject:
        yield subject


async def found(check: Check, subject: Subject) -> list[str]:
    """What a check finds; it finds nothing without saying what to do."""
    checked = await run("check", check, subject)
    assert all(each.action for each in checked.findings)
    return [each.what for each in checked.findings]


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.1)


def test_a_mesh_that_is_well_has_no_findings(mesh: Mesh) -> None:
    result = pmp(mesh, "doctor", "--json")
    report = json.loads(result.stdout)
    assert [each for each in report["checks"] if each["findings"] or each["left_out"]] == []
    assert (result.exit_code, report["is_well"]) == (0, True)
    assert [each["check"] for each in report["checks"]] == list(CHECKS)


@pytest.fixture(scope="module")
def traced(mesh: Mesh) -> tuple[str, list[Span]]:
    """The id of an event, and its spans."""
    own = page_view(
        email="ada@example.org",
        ip_address="203.0.113.77",
        user_id="visitor-42",
        session_id="secret-session",
        page_url="https://shop.example/?email=ada@example.org",
    )
    call(mesh, "events/track", own, traceparent=f"00-{TRACE}-{CALLER}-01")
    files = SpanFiles(mesh.data / "traces")

    def whole() -> bool:
        spans = files.find(TRACE)
        known = {span.span_id for span in spans}
        followed = {span.service for span in spans if span.name == "log consume"}
        delivered = any(span.name == "deliver" for span in spans)
        # Every span has a parent in the trace, and the first one the caller's.
        closed = {span.parent_id for span in spans} - known == {CALLER}
        return closed and delivered and {"ingestion-worker", "identity", "journeys", "analytics", "destinations"} <= followed

    until(lambda: any((mesh.data / "traces").iterdir()), 30)
    until(whole, 30)
    spans = list[Span]()
    while len(spans) < len(spans := files.find(TRACE)):
        time.sleep(1.5)  # longer than it takes until spans arrive
    return own["id"], spans


def test_one_event_is_one_trace_from_the_gateway_to_projections_and_delivery(mesh: Mesh, traced: tuple[str, list[Span]]) -> None:
    _, spans = traced
    names = {span.name for span in spans}
    assert {"log append", "log consume", "outbox publish", "deliver"} <= names
    assert any("INSERT" in name.upper() for name in names)
    assert any("TrackEvent" in name for name in names), names
    services = {span.service for span in spans}
    assert services == {"gateway", "ingestion", "ingestion-worker", "identity", "journeys", "analytics", "destinations"}
    (delivery,) = (span for span in spans if span.name == "deliver")
    assert (delivery.attributes["pmp.delivery.destination"], delivery.attributes["pmp.delivery.outcome"]) == ("crm", "delivered")
    kept = "".join(path.read_text(errors="replace") for folder in ("logs", "traces") for path in (mesh.data / folder).iterdir())
    for personal in PERSONAL:
        assert personal not in kept


def test_the_trace_of_an_event_is_printed_as_a_tree(mesh: Mesh, traced: tuple[str, list[Span]]) -> None:
    event_id, spans = traced
    result = pmp(mesh, "trace", event_id)
    assert result.exit_code == 0, result.stderr
    printed = result.stdout
    first, summary, gateway, *below = printed.splitlines()
    assert first.startswith("stored, received at ")
    assert first.endswith(f"trace {TRACE}")
    assert summary.startswith(f"{len(spans)} spans of 7 services in ")
    assert gateway.startswith("└── gateway ")
    lines = [line.replace("│", " ").lstrip("└├─ ") for line in below]
    assert any(line.startswith("ingestion pmp.ingestion.v1.IngestionService/TrackEvent ") for line in lines)
    assert any(line.startswith("journeys log consume ") and " later (events)" in line for line in lines)
    assert any(line.startswith("destinations deliver ") and "(crm, delivered)" in line for line in lines)
    assert any(line.startswith("SQL: ") for line in lines)
    assert "INSERT INTO" not in printed
    arrivals = json.loads(pmp(mesh, "trace", event_id, "--json").stdout)
    assert [(each["outcome"], each["trace_id"], len(each["spans"])) for each in arrivals] == [("stored", TRACE, len(spans))]


def test_an_event_that_nobody_sent_has_no_trace(mesh: Mesh) -> None:
    refusal = pmp(mesh, "trace", "nothing")
    assert refusal.exit_code == 1
    assert "the outcome of an event nothing is not known" in refusal.stderr


async def test_processes_that_hang_are_found_and_so_is_what_waits_for_them(mesh: Mesh) -> None:
    worker = mesh.pid("ingestion-worker")
    async with examining(mesh) as subject:
        assert await found(log.progress, subject) == []
        os.kill(worker, signal.SIGSTOP)
        try:
            call(mesh, "events/track", page_view())
            assert await found(processes.readiness, subject) == ["ingestion-worker is not ready"]
            assert await found(log.progress, subject) == ["ingestion does not go on reading intake: 1 wait, and nothing moved for 2 s"]
        finally:
            os.kill(worker, signal.SIGCONT)

        async def caught_up() -> bool:
            return await found(log.progress, subject) == [] and await found(processes.readiness, subject) == []

        await eventually(caught_up)
        sql(mesh, "journeys", "UPDATE outbox_heads SET position = position + 5 WHERE topic = 'journeys' AND partition = 0")
        assert await found(log.progress, subject) == ["journeys does not go on publishing journeys: 5 wait, and nothing moved for 2 s"]
        sql(mesh, "journeys", "UPDATE outbox_heads SET position = position - 5 WHERE topic = 'journeys' AND partition = 0")


async def test_another_version_of_processes_is_found(mesh: Mesh) -> None:
    async with examining(mesh) as subject:
        what = [each.what async for each in processes.versions(subject, "9.9.9")]
    assert what == [
        f"{name} runs version {installed_version()}, installed is 9.9.9" for name in ("ingestion", "ingestion-worker", "followers")
    ]


@pytest.mark.parametrize(("revision", "is_pending"), [("journeys_0001", True), ("journeys_9999", False)])
async def test_a_pending_migration_is_found_and_one_of_a_later_release_is_none(mesh: Mesh, revision: str, *, is_pending: bool) -> None:
    with closing(sqlite3.connect(mesh.data / "journeys.db")) as connection:
        (newest,) = connection.execute("SELECT version_num FROM alembic_version WHERE version_num LIKE 'journeys%'").fetchone()
    sql(mesh, "journeys", "UPDATE alembic_version SET version_num = ? WHERE version_num = ?", revision, newest)
    try:
        async with examining(mesh) as subject:
            findings = [each async for each in schema.revisions(subject)]
    finally:
        sql(mesh, "journeys", "UPDATE alembic_version SET version_num = ? WHERE version_num = ?", newest, revision)
    assert [each.action.startswith("`pmp migrate`") for each in findings] == [True] * is_pending
    assert all(f"the database of journeys has the revisions {revision}" in each.what for each in findings)


async def test_lost_events_and_dead_letters_are_found(mesh: Mesh) -> None:
    hour = int(time.time() // 3600)
    sql(
        mesh,
        "ingestion",
        "INSERT INTO log_counters (topic, partition, epoch, hour, name, count) VALUES ('intake', 0, 'nobody', ?, 'received', 3)",
        hour,
    )
    sql(
        mesh,
        "journeys",
        "INSERT INTO dead_letters VALUES (1, 'events', 0, '1-0', 0, 0, 'pmp.ingestion.v1.EventStored', '', '', 'why', 'dead', ?)",
        "2026-11-29 00:00:00.000000",
    )
    try:
        async with examining(mesh) as subject:
            assert await found(log.books, subject) == ["the log lost 3 events that it had confirmed"]
            assert await found(log.dead_letters, subject) == ["1 messages that journeys could not apply wait for a decision"]
    finally:
        sql(mesh, "ingestion", "DELETE FROM log_counters WHERE epoch = 'nobody'")
        sql(mesh, "journeys", "DELETE FROM dead_letters")


async def test_a_disk_that_fills_up_is_found(mesh: Mesh) -> None:
    async with examining(mesh) as subject:
        assert subject.local is not None
        assert await found(disk.disk, subject) == []
        free = Disk(folder=mesh.data, least_bytes=0).free_bytes()
        for least, text in ((free // 2 + 2**30, "are free on the disk"), (2 * free, ": intake stops below")):
            full = subject.local.state.model_copy(update={"disk": Disk(folder=mesh.data, least_bytes=least)})
            (what,) = await found(disk.disk, replace(subject, local=replace(subject.local, state=full)))
            assert text in what


async def test_a_backup_that_is_old_or_was_never_made_is_found(mesh: Mesh) -> None:
    in_three_days = datetime.now(UTC) + timedelta(days=3)
    async with examining(mesh) as subject:
        assert subject.local is not None
        redis: Any = subject.log.redis
        await redis.delete(BACKED_UP)
        assert [each.what async for each in backups.backups(subject, in_three_days)] == ["there has never been a backup of this mesh"]
        await redis.set(BACKED_UP, datetime(2026, 1, 1, 3, 0, 30, tzinfo=UTC).timestamp())
        assert await found(backups.backups, subject) == ["the last backup is of 2026-01-01 03:00 UTC"]
        await redis.set(BACKED_UP, time.time())
        assert await found(backups.backups, subject) == []


@pytest.mark.parametrize(("seconds", "direction"), [(-10, "ahead of"), (10, "slow against")])
async def test_a_clock_that_is_off_is_found(mesh: Mesh, seconds: float, direction: str) -> None:
    async with examining(mesh) as subject:
        (finding,) = [each async for each in clocks.clocks(subject, lambda: time.time() + seconds)]
    assert finding.what == f"the clock of Redis is 10.0 s {direction} this machine's"


async def test_a_certificate_that_ends_soon_is_found(mesh: Mesh) -> None:
    async with examining(mesh) as subject:
        issue(mesh.data.parent / "certificates", 5)

        async def is_found() -> bool:
            return await found(certificates.certificates, subject) in [
                [f"the gateway's certificate is valid for {n} more days"] for n in (4, 5)
            ]

        await eventually(is_found)
    issue(mesh.data.parent / "certificates", 30)


async def test_keys_that_do_not_open_what_is_stored_are_found(mesh: Mesh) -> None:
    call(mesh, "users/register", {"wordpress_id": 7, "email": "grace@example.org", "timestamp": datetime.now(UTC).isoformat()})
    # A key that an erasure destroyed is as it should be.
    sql(mesh, "subject_keys", "INSERT INTO subject_keys VALUES ('00', 1, NULL, NULL, '2026-01-01', '2026-01-02')")
    async with examining(mesh) as subject:
        assert await found(keys.keys, subject) == []
        (what,) = await found(keys.keys, replace(subject, key_encryption_keys=OTHER_KEY))
        assert what.endswith("keys of persons are wrapped by a key that is not among PMP_KEY_ENCRYPTION_KEYS")
        (what,) = await found(keys.keys, replace(subject, key_encryption_keys=f"{OTHER_KEY},{subject.key_encryption_keys}"))
        assert what.endswith("keys of persons are wrapped by an older key")
        (what,) = await found(keys.keys, replace(subject, vault_key=OTHER_KEY))
        assert what == "PMP_VAULT_KEY is not the key by which persons were stored: none is recognised any more"
        assert await found(keys.keys, replace(subject, vault_key="short")) == ["PMP_VAULT_KEY is not 32 bytes in base64"]
    sql(mesh, "subject_keys", "DELETE FROM subject_keys WHERE owner = '00'")


async def test_secrets_that_are_weak_shared_or_old_are_found(mesh: Mesh) -> None:
    async with examining(mesh) as subject:
        assert subject.local is not None
        own = subject.local.secrets
        weak = own.model_copy(update={"api_keys": ("password-password-password",), "jwt_secrets": own.browser_api_keys})
        changed = replace(subject, local=replace(subject.local, secrets=weak), redis_url="redis://127.0.0.1:1")
        what = await found(strength.secrets, changed)
        assert what == [
            "the password of Redis is missing",
            "PMP_API_KEYS is short or too regular to be random",
            "PMP_BROWSER_API_KEYS and PMP_JWT_SECRETS are the same secret",
        ]
        assert "password-" not in "".join(what)
        in_a_year = datetime.now(UTC) + timedelta(days=366)
        (finding,) = [each async for each in strength.secrets(subject, in_a_year)]
        assert finding.what.startswith("no secret of this mesh has changed since ")


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("appendfsync", "everysec", "appendfsync is everysec instead of always"),
        ("maxmemory-policy", "allkeys-lru", "maxmemory-policy is allkeys-lru instead of noeviction"),
        ("aof-use-rdb-preamble", "yes", "aof-use-rdb-preamble is yes instead of no"),
        ("maxmemory", "0", "maxmemory is not set"),
        ("maxmemory", "300000000", "PMP_LOG_MAX_BYTES is more than 60% of maxmemory"),
    ],
)
async def test_settings_of_redis_that_lose_events_are_found(mesh: Mesh, name: str, value: str, what: str) -> None:
    async with examining(mesh) as subject:
        redis: Any = subject.log.redis
        (before,) = (await redis.config_get(name)).values()
        await redis.config_set(name, value)
        try:
            (finding,) = await found(redis_checks.configuration, subject)
        finally:
            await redis.config_set(name, before)
        assert finding.startswith(what)
        assert await found(redis_checks.configuration, subject) == []


async def test_a_log_that_is_nearly_full_is_found_and_a_redis_that_hides_its_settings_is_left_out(mesh: Mesh) -> None:
    async with examining(mesh) as subject:
        (what,) = await found(redis_checks.configuration, replace(subject, log_max_bytes=2**20))
        assert what.endswith("and intake stops at 1 MiB")
        redis: Any = subject.log.redis
        await redis.execute_command("ACL", "SETUSER", "guest", "on", ">guest", "~*", "+@all", "-config")
        own = f":{Secrets.load(DataFolder(mesh.data)).redis_password}@"
        async with open_log(subject.redis_url.replace(own, "guest:guest@")) as hidden:
            checked: Checked = await run("redis", redis_checks.configuration, replace(subject, log=hidden))
        assert checked.findings == []
        assert checked.left_out.startswith("this Redis does not show its configuration")


async def test_orders_without_a_rate_and_old_rates_are_found(mesh: Mesh) -> None:
    now = datetime.now(UTC).isoformat()
    order = {"id": "woo:order:1", "order_id": "1", "timestamp": now, "paid_at": now, "payment_status": "completed", "amount": 10}
    product = {"product_id": "1", "product_name": "A course", "product_type": "course", "payment_method": "card"}
    call(mesh, "purchases/track", {**order, **product, "currency": "EUR", "email": "grace@example.org"})
    sql(mesh, "purchases", "INSERT INTO exchange_rates (day, currency, units, source) VALUES ('2026-01-02', 'USD', '1.1', 'file')")
    async with examining(mesh) as subject:
        what = [each.what async for each in rates.rates(subject, date(2026, 1, 10))]
    assert what == [
        "1 paid orders have no exchange rate, and are left out of sums",
        "the newest exchange rates are of 2026-01-02: new orders in other currencies get none",
    ]


async def test_a_paused_destination_and_what_it_was_not_sent_are_found(mesh: Mesh) -> None:
    async with examining(mesh) as subject:
        await operate(subject.settings, "crm", "pause", reason="the office moves")
        call(mesh, "events/track", page_view())

        async def queued() -> bool:
            sql(mesh, "destinations", "UPDATE deliveries SET decided_at = '2026-01-01 00:00:00.000000' WHERE state = 'pending'")
            return len(await found(destination_checks.destinations, subject)) == 2

        await eventually(queued)
        paused, waiting = await found(destination_checks.destinations, subject)
        assert paused == "nothing is sent to crm, it is paused: the office moves"
        assert waiting.startswith("the oldest delivery to crm has been waiting since 2026-01-01T00:00:00")
        sql(mesh, "destinations", "UPDATE deliveries SET state = 'dead' WHERE state = 'pending'")
        assert (await found(destination_checks.destinations, subject))[-1] == "1 deliveries to crm were given up and wait for a decision"
        await operate(subject.settings, "crm", "resume")


async def test_a_server_that_does_not_answer_is_a_finding(mesh: Mesh) -> None:
    async with examining(mesh) as subject, open_log(f"redis://127.0.0.1:{free_port()}") as nowhere:
        (what,) = await found(log.progress, replace(subject, log=nowhere))
    assert what.startswith("not all could be examined: redis.exceptions.ConnectionError")


def test_a_pod_examines_what_its_settings_lead_to(mesh: Mesh, tmp_path: Path) -> None:
    state, secrets = mesh.state, Secrets.load(DataFolder(mesh.data))
    pod = {
        "PMP_DATA": str(tmp_path),
        "PMP_MESH_TOKEN": secrets.mesh_token,
        "PMP_VAULT_KEY": secrets.vault_key,
        "PMP_KEY_ENCRYPTION_KEYS": ",".join(secrets.key_encryption_keys),
        "PMP_DATABASE_URL": state["database_url"],
        "PMP_REDIS_URL": state["redis_url"],
        "PMP_SERVICE_ADDRESSES": json.dumps(state["service_addresses"]),
    }

    report = pmp(mesh, "doctor", **pod).stdout
    lines = dict(line.split("  ", 1) for line in report.splitlines() if line[:1].strip() and "  " in line)
    shown = {name.strip(): text.strip() for name, text in lines.items()}
    assert list(shown) == list(CHECKS)
    assert {name for name, text in shown.items() if text.startswith("left out")} == {"versions", "disk", "backups", "certificates"}
    assert shown["processes"] == shown["redis"] == shown["keys"] == "well"
    assert pmp(mesh, "destinations", "pause", "crm", "--reason", "moving", **pod).stdout == "crm is paused\n"
    assert json.loads(pmp(mesh, "destinations", "list", "--json", **pod).stdout)[0]["pause_reason"] == "moving"
    assert pmp(mesh, "destinations", "resume", "crm", **pod).stdout == "crm is sent to again\n"
    assert pmp(mesh, "destinations", "resume", "nobody", **pod).stderr == "pmp: NOT_FOUND there is no destination nobody\n"
