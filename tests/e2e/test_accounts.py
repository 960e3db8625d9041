"""Each service has its own database account: the mesh works with them, and none can read another service's data."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pymysql
import pytest
from pmp_mesh_client.tokens import Scope

from bench.servers import Mesh, environment, running
from cli.folder import DataFolder
from cli.layout import Processes, databases, service_names
from cli.local_secrets import Secrets
from cli.plan import Options, make_plan
from cli.ports import LOOPBACK
from tests.servers import PORTS, PrivateMariaDb, free_port

SCRIPT = Path(__file__).parents[2] / "deploy" / "components" / "accounts" / "accounts.sh"
pytestmark = pytest.mark.timeout(400)  # the setup is a dozen starts of Python

DENIED = {1044, 1142}
DESTROYED = "SELECT * FROM subject_keys.subject_keys WHERE wrapped IS NULL AND destroyed_at IS NOT NULL"


class Accounts:
    """A MariaDB with the accounts of the deployment."""

    def __init__(self, server: PrivateMariaDb, folder: Path) -> None:
        self._port = server.port
        self.passwords = {name: secrets.token_hex(32) for name in service_names()}
        for name, password in self.passwords.items():
            (folder / name).write_text(password)
        statements = subprocess.run(["sh", SCRIPT], env={**os.environ, "ACCOUNTS": str(folder)}, check=True, capture_output=True, text=True)
        for statement in statements.stdout.splitlines():
            server.query("information_schema", statement)

    def url(self, service: str) -> str:
        """The account that only this service's pods know."""
        return f"mysql+aiomysql://{service}:{self.passwords[service]}@127.0.0.1:{self._port}/{{service}}"

    def execute(self, service: str, sql: str) -> int:
        """Number of rows of a statement, executed as this service.

        Raises:
            pymysql.MySQLError: the server refuses.
        """
        password = self.passwords[service]
        with (
            pymysql.connect(host="127.0.0.1", port=self._port, user=service, password=password) as connection,
            connection.cursor() as cursor,
        ):
            return cursor.execute(sql)


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    server = PrivateMariaDb(tmp_path_factory.mktemp("mariadb"))
    server.install()
    yield Accounts(server, tmp_path_factory.mktemp("accounts"))
    server.kill()


@pytest.fixture(scope="module")
async def mesh(accounts: Accounts, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Mesh]:
    """Each process knows only the account of its service, from the migration on."""
    folder = DataFolder(tmp_path_factory.mktemp("mesh"))
    folder.create()
    own = Secrets.load_or_make(folder)
    plan = make_plan(Options(LOOPBACK, free_port(), "mysql+aiomysql://", None, Processes.EACH), folder, own, PORTS, environment())
    commands = [
        replace(each, environment={**each.environment, "PMP_DATABASE_URL": accounts.url(each.name.removesuffix("-worker"))})
        for each in plan.services
    ]
    # Only gdpr's account may create the database of keys: the others wait for it.
    order = sorted((command for command in commands if command.name in databases()), key=lambda command: command.name == "gdpr")
    migrations: list[asyncio.subprocess.Process] = []
    for command in order:
        if command.name == "gdpr":
            await asyncio.sleep(1)
            assert [each.returncode for each in migrations] == [None] * len(migrations)
        migrations.append(await asyncio.create_subprocess_exec(sys.executable, "-m", "kit.migrate", command.name, env=command.environment))
    assert [await each.wait() for each in migrations] == [0] * len(migrations)
    assert plan.redis is not None
    async with running(plan.redis), running(*commands, plan.gateway):
        yield Mesh(plan, accounts.url("ingestion"), own)


async def test_the_mesh_works_with_an_account_for_each_service(mesh: Mesh, accounts: Accounts) -> None:
    """Keys are created by the service that seals, and destroyed by gdpr: an erased person has data in every service."""
    person = {"id": "42", "email": "ada@shop.example", "first_name": "Ada"}
    now = {"timestamp": datetime.now(UTC).isoformat()}
    order = {"order_id": "1", "user_id": "42", "amount": 10, "currency": "USD", "payment_status": "completed", **now}
    event = {"event_type": "lead_capture", "user_id": "42", "email": person["email"], **now}
    site, admin = (mesh.credentials(scope).headers() for scope in (Scope.SITE, Scope.ADMIN))
    async with httpx.AsyncClient(base_url=mesh.plan.url, timeout=30) as client:
        for path, body in (("users/register", person), ("purchases/track", order), ("events/track", event)):
            answer = await client.post(f"/api/v1/{path}", json=body, headers=site)
            assert answer.status_code == 200, answer.text
        assert accounts.execute("identity", "SELECT * FROM subject_keys.subject_keys WHERE wrapped IS NOT NULL") >= 2
        assert accounts.execute("identity", DESTROYED) == 0
        answer = await client.request("DELETE", "/api/v1/users/42/data", headers=admin)
        assert answer.status_code == 200, answer.text
        request, deadline = answer.json()["request"], time.monotonic() + 60
        while request["state"] != "done":
            assert time.monotonic() < deadline, json.dumps(request)
            await asyncio.sleep(0.2)
            request = (await client.get(f"/api/v1/gdpr/requests/{request['id']}", headers=admin)).json()["request"]
    assert accounts.execute("identity", DESTROYED) > 0


async def test_no_account_reads_the_database_of_another_service(mesh: Mesh, accounts: Accounts) -> None:
    assert mesh.plan.services
    for service in databases():
        assert accounts.execute(service, f"SELECT * FROM {service}.alembic_version") > 0  # noqa: S608  (no value)
        for other in set(databases()) - {service}:
            with pytest.raises(pymysql.MySQLError) as refused:
                accounts.execute(service, f"SELECT * FROM {other}.alembic_version")  # noqa: S608  (no value)
            assert refused.value.args[0] in DENIED


@pytest.mark.parametrize(
    ("service", "allowed"),
    [
        ("analytics", set[str]()),
        ("identity", set[str]()),
        ("purchases", set[str]()),
        ("journeys", set[str]()),
        ("ingestion", {"DELETE"}),
        ("gdpr", {"DELETE", "UPDATE", "ALTER"}),
    ],
)
async def test_what_a_service_does_to_keys_is_all_that_its_account_may(
    mesh: Mesh, accounts: Accounts, service: str, allowed: set[str]
) -> None:
    assert mesh.plan.services
    statements = {
        "DELETE": "DELETE FROM subject_keys.subject_keys WHERE owner = 'nobody'",
        "UPDATE": "UPDATE subject_keys.subject_keys SET wrapped = NULL WHERE owner = 'nobody'",
        "ALTER": "ALTER TABLE subject_keys.subject_keys COMMENT = ''",
    }
    for kind, sql in statements.items():
        if kind in allowed:
            accounts.execute(service, sql)
        else:
            with pytest.raises(pymysql.MySQLError) as refused:
                accounts.execute(service, sql)
            assert refused.value.args[0] in DENIED
