"""A person with much data is erased from MariaDB and Redis, and another one while every participant is killed again and again."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import redis
from pydantic import SecretStr

from cli.folder import DataFolder
from cli.layout import Processes
from cli.local_secrets import Secrets
from kit.people.keys.seals import EMAIL_CONTEXT
from kit.people.keys.store import open_keys
from kit.settings import Settings
from services.identity.messages import NAME_CONTEXT
from services.purchases.messages import BILLING_CONTEXT
from tests.e2e.mesh import Mesh, running
from tests.e2e.person import Person, another_visitor, asked, call, known
from tests.e2e.spans import Receiver, receiving
from tests.servers import PrivateMariaDb, PrivateRedis, until
from tests.variants import long_test

pytestmark = long_test

ADA = Person(
    id="ada",
    wordpress="7311973119731",
    last_name="Lovelace",
    street="12 Dorset Street",
    emails=["ada.lovelace@analytical.example", "countess@analytical.example", "enchantress@analytical.example"],
    sessions=["visit-of-ada-1815", "visit-of-ada-1835", "visit-of-ada-1852"],
)
GRACE = Person(
    id="grace",
    wordpress="8422084220842",
    last_name="Hopper",
    street="1906 Harvard Road",
    emails=["grace.hopper@mark.example", "amazing@mark.example"],
    sessions=["visit-of-grace-1906", "visit-of-grace-1992"],
)
FEW_EVENTS = 1200
"""More than fit into one transaction."""
EVENTS, ORDERS = int(os.environ.get("PMP_ERASED_EVENTS", "2000")), 20
"""The guarantees hold for 10000 events, too."""
SUPPRESSED, ERASED = timedelta(seconds=5), timedelta(seconds=60)
Sealed: TypeAlias = tuple[str, bytes]
"""A context, and the values sealed in it."""
SERVICES = ("analytics", "gdpr", "identity", "ingestion", "journeys", "purchases")


@dataclass(frozen=True)
class Shop:
    """A mesh with private servers, and the spans it exports."""

    mesh: Mesh
    mariadb: PrivateMariaDb
    redis: PrivateRedis
    spans: Receiver

    def query(self, service: str, sql: str) -> list[tuple[Any, ...]]:
        return self.mariadb.query(f"scale_{service}", sql)

    def backup(self) -> bytes:
        return self.mariadb.dump(name for (name,) in self.mariadb.query("mysql", "SHOW DATABASES LIKE 'scale\\_%'"))

    def is_lagging(self) -> bool:
        """Whether a service has not read everything that the others published."""
        heads = {
            row[:2]: row[2] for service in SERVICES for row in self.query(service, "SELECT topic, `partition`, position FROM outbox_heads")
        }
        read = [row for service in SERVICES for row in self.query(service, "SELECT topic, `partition`, position FROM stream_offsets")]
        return any(int(position.partition("-")[0]) < heads.get((topic, partition), 0) for topic, partition, position in read)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, redis_of_mesh: PrivateRedis, mariadb_server: PrivateMariaDb) -> Iterator[Shop]:
    urls = ["--database-url", mariadb_server.url.replace("{service}", "scale_{service}"), "--redis-url", redis_of_mesh.url]
    with ExitStack() as stack:
        spans, environment = stack.enter_context(receiving())
        mesh = stack.enter_context(running(tmp_path_factory.mktemp("mesh"), *urls, environment=environment, processes=Processes.EACH))
        yield Shop(mesh, mariadb_server, redis_of_mesh, spans)


def settled(shop: Shop, person: Person, *, events: int, orders: int) -> list[str]:
    """The users of a person, once every service has applied everything that was reported."""
    users = known(shop.mesh, person, events=events, orders=orders)
    shop.mesh.drained()
    until(lambda: not shop.is_lagging())
    return users


def would_go(shop: Shop, person: Person) -> Counter[str]:
    """Rows that an erasure would find, by service and table."""
    answer = call(shop.mesh, "DELETE", f"users/{person.wordpress}/data?dry_run=true")
    return Counter(
        {f"{holder['service']} {table['table']}": int(table["rows"]) for holder in answer["would_go"] for table in holder["tables"]}
    )


def went(request: Mapping[str, Any]) -> Counter[str]:
    """Rows that an erasure took of those it would find, by service and table."""
    return sum((_rows(step) for step in request["steps"] if step["name"].startswith(("erase ", "purge "))), Counter[str]())


def _rows(step: Mapping[str, Any]) -> Counter[str]:
    holder = step["name"].partition(" ")[2]
    return Counter({f"{holder} {table['table']}": int(table["rows"]) for table in step["tables"]})


def leads(shop: Shop, names: list[str]) -> list[str]:
    """Where one of these is found: dumps of the databases, contents of Redis, its files, logs, spans."""
    mesh, server = shop.mesh, shop.redis
    files = [path for folder in (mesh.data, server.folder) for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    texts = {str(path): path.read_bytes() for path in files}
    texts |= {"databases": shop.backup(), "Redis": in_redis(server).encode(), "spans": shop.spans.text.encode()}
    texts["log of MariaDB"] = (shop.mariadb.folder / "server.log").read_bytes()
    return [f"{place}: {name}" for place, text in texts.items() for name in names if name.encode() in text]


def in_redis(server: PrivateRedis) -> str:
    """Every key with its contents."""
    with redis.Redis.from_url(server.url) as connection:
        client: Any = connection
        readers = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"stream": client.xrange,
            b"zset": partial(client.zrange, start=0, end=-1, withscores=True),
            b"set": client.smembers,
            b"list": partial(client.lrange, start=0, end=-1),
        }
        return "\n".join(f"{key} {readers[client.type(key)](key)}" for key in client.scan_iter(count=1000))


def sealed(shop: Shop) -> list[Sealed]:
    """What is sealed in the databases, with its context."""
    users = shop.query("identity", "SELECT email, last_name FROM users WHERE email IS NOT NULL")
    bills = shop.query("purchases", "SELECT billing_data FROM purchases WHERE billing_data IS NOT NULL")
    addresses = [(EMAIL_CONTEXT, email) for email, _ in users] + [(NAME_CONTEXT, name) for _, name in users if name]
    return addresses + [(BILLING_CONTEXT, bill) for (bill,) in bills]


def opened(shop: Shop, values: list[Sealed]) -> list[str]:
    """Sealed values as opened with the database of keys and all secrets of the mesh."""
    secrets = Secrets.load(DataFolder(shop.mesh.data))
    settings = Settings(
        mesh_token=SecretStr("unused"),
        vault_key=SecretStr(secrets.vault_key),
        key_encryption_keys=SecretStr(",".join(secrets.key_encryption_keys)),
        database_url=shop.mariadb.url.replace("{service}", "scale_{service}"),
        redis_url=shop.redis.url,
    )

    async def all_of_them() -> list[str]:
        async with open_keys(settings) as keys:
            decryptor = await keys.decryptor(value for _, value in values)
            return [decryptor.open(value, context=context) for context, value in values]

    return asyncio.run(all_of_them())


@dataclass(frozen=True)
class Erased:
    """A completed erasure."""

    users: list[str]
    request: dict[str, Any]
    would_go: Counter[str]
    sealed: list[Sealed]
    """The person's sealed address, name and billing data in a backup from before the erasure."""
    clear: list[str]
    """The same, opened with all keys before the erasure."""
    led: set[str]
    """Where the person could be identified before."""


@pytest.fixture(scope="module")
def erased(shop: Shop) -> Erased:
    """The erasure of much data, while another visitor is on the site."""
    mesh = shop.mesh
    users = settled(shop, ADA, events=EVENTS, orders=ORDERS)
    found, led, backup = would_go(shop, ADA), {place.partition(": ")[0] for place in leads(shop, ADA.personal_values)}, sealed(shop)
    clear = opened(shop, backup)
    with another_visitor(mesh) as sent:
        request = call(mesh, "DELETE", f"users/{ADA.wordpress}/data")["request"]["id"]
        until(lambda: asked(mesh, request)["state"] == "done", ERASED.total_seconds() * 2)
    mesh.drained()
    assert shop.query("ingestion", "SELECT count(*) FROM events WHERE user_id = '99'") == [(len(sent),)]
    return Erased(users, asked(mesh, request), found, backup, clear, led)


def test_a_person_with_much_data_is_erased_in_time_and_counted(erased: Erased) -> None:
    request = erased.request
    asked_at, finished_at = (datetime.fromisoformat(request[name]) for name in ("requested_at", "finished_at"))
    suppressed_at = datetime.fromisoformat(next(step["finished_at"] for step in request["steps"] if step["name"] == "suppress"))
    assert finished_at - asked_at <= ERASED
    assert suppressed_at - asked_at <= SUPPRESSED
    assert (erased.would_go["ingestion events"], erased.would_go["purchases purchases"]) == (EVENTS + 1, ORDERS)
    assert went(request) == erased.would_go


def test_nothing_is_left_in_databases_log_and_telemetry(shop: Shop, erased: Erased) -> None:
    assert leads(shop, [*ADA.personal_values, *erased.users]) == []
    assert {"databases", "Redis"} < erased.led, "what is searched is where something was"


def test_what_a_backup_holds_sealed_can_be_opened_by_nobody_any_more(shop: Shop, erased: Erased) -> None:
    assert {ADA.emails[0], ADA.last_name} < set(erased.clear)
    assert len([text for text in erased.clear if ADA.street in text]) == ORDERS
    assert opened(shop, erased.sealed) == [""] * len(erased.sealed)


@pytest.mark.timeout(400)  # it starts some twenty processes sequentially
def test_an_erasure_ends_whatever_dies_after_each_of_its_steps_and_takes_everything_once(shop: Shop, erased: Erased) -> None:
    mesh = shop.mesh
    settled(shop, GRACE, events=FEW_EVENTS, orders=1)
    expected = would_go(shop, GRACE)
    shop.query("gdpr", "CREATE TABLE gate (number INT)")
    shop.query("gdpr", "INSERT INTO gate VALUES (-1)")
    # Without a gate a process may have reached the step after next before it is killed.
    shop.query(
        "gdpr",
        "CREATE TRIGGER gate BEFORE UPDATE ON request_steps FOR EACH ROW IF NEW.state = 'done' AND NEW.number > (SELECT number FROM gate)"
        " THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not yet'; END IF",
    )
    request = call(mesh, "DELETE", f"users/{GRACE.wordpress}/data")["request"]
    with mesh.unattended() as start:
        down = ""
        for number in range(len(request["steps"])):
            shop.query("gdpr", f"UPDATE gate SET number = {number}")  # noqa: S608
            if down:
                until(lambda number=number: tried(shop, request["id"], number))
                start(down)
            until(lambda number=number: tried(shop, request["id"], number) == "done")
            down = next_in_turn(request["steps"][number + 1 :])
            for name in ("gdpr", down):
                if name:
                    mesh.kill(name)
            forget_leases(shop.redis)
            start("gdpr")
        shop.query("gdpr", "DROP TRIGGER gate")
        until(lambda: shop.query("gdpr", f"SELECT state FROM subject_requests WHERE id = '{request['id']}'") == [("done",)])  # noqa: S608
    where, headers = f"{mesh.url}/api/v1/gdpr/requests/{request['id']}", mesh.credentials("site")
    until(lambda: mesh.client.get(where, headers=headers).status_code == 200)
    assert went(asked(mesh, request["id"])) == expected
    assert mesh.pmp("audit", "verify").stdout == "4 entries, 0 faults\n"
    assert erased.request["id"] != request["id"]


def next_in_turn(steps: list[dict[str, Any]]) -> str:
    """The process that is down when the next step begins: the service that has to erase then, or before that the worker."""
    what, _, holder = steps[0]["name"].partition(" ") if steps else ("", "", "")
    return {"names": "ingestion-worker", "erase": holder}.get(what, "").replace("gdpr", "")


def tried(shop: Shop, request: str, number: int) -> str:
    """The state of a step that was tried at least once; otherwise empty."""
    where = f"request_id = '{request}' AND number = {number} AND (started_at IS NOT NULL OR state = 'done')"
    return "".join(state for (state,) in shop.query("gdpr", f"SELECT state FROM request_steps WHERE {where}"))  # noqa: S608


def forget_leases(server: PrivateRedis) -> None:
    """Expires the leases of killed processes."""
    with redis.Redis.from_url(server.url) as connection:
        client: Any = connection
        for key in (*client.scan_iter("*:lease:*"), *client.scan_iter("*:members")):
            client.delete(key)
