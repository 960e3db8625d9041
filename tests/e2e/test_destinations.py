"""A mesh with a destination: an operator's commands through the gateway, and a service that is killed while it sends."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from standardwebhooks import Webhook
from typer.testing import CliRunner
from typing_extensions import override

from cli.__main__ import app
from cli.layout import Processes
from tests.e2e.mesh import Mesh, running
from tests.servers import until
from tests.webhooks import SECRET

EVENTS = int(os.environ.get("PMP_KILLED_DELIVERIES", "60"))
KILLS = 1 if EVENTS < 1000 else 5


class Shop:
    """A system that receives webhooks: how often each, by the event's id and the id of the webhook."""

    def __init__(self) -> None:
        self.received: Counter[tuple[str, str]] = Counter()
        self.status = 200
        self.url = ""

    def events(self) -> set[str]:
        """The events that were received."""
        return {event for event, _ in self.received}


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    shop = Shop()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            webhook: Any = Webhook(SECRET).verify(self.rfile.read(int(self.headers["content-length"])), dict(self.headers))
            if webhook["type"] == "event.page_view":
                shop.received[webhook["data"]["event"]["id"], self.headers["webhook-id"]] += 1
            self.send_response(shop.status)
            self.send_header("content-length", "0")
            self.end_headers()

        @override
        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        shop.url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield shop
        server.shutdown()


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, shop: Shop) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("mesh")
    file = folder.with_suffix(".toml")
    file.write_text(
        f'[crm]\nkind = "webhook"\nurl = "{shop.url}"\nsecrets = ["CRM_SECRET"]\nconsent = "none"\n'
        'allow_private_networks = true\ntypes = ["event.page_view", "order.*"]\n'
    )
    with running(folder, environment={"PMP_DESTINATIONS": str(file), "CRM_SECRET": SECRET}, processes=Processes.EACH) as mesh:
        until(lambda: mesh.pmp("destinations", "list", check=False).stdout.count("crm") or _visit(mesh, "first"))
        yield mesh


def _visit(mesh: Mesh, *ids: str) -> None:
    events = [{"id": id_, "event_type": "page_view", "timestamp": datetime.now(UTC).isoformat(), "session_id": id_} for id_ in ids]
    answer = mesh.client.post(f"{mesh.url}/api/v1/events/batch", headers=mesh.credentials("site"), json={"events": events})
    assert answer.status_code == 200, answer.text


def listed(mesh: Mesh) -> dict[str, Any]:
    answer = mesh.client.get(f"{mesh.url}/api/v1/destinations", headers=mesh.credentials("read"))
    (crm,) = answer.json()["destinations"]
    return crm


def test_an_operator_tests_pauses_resumes_and_replays(mesh: Mesh, shop: Shop) -> None:
    assert mesh.pmp("destinations", "test", "crm").stdout == "HTTP 200\n"
    assert mesh.pmp("destinations", "pause", "crm", "--reason", "the office moves").stdout == "crm is paused\n"
    assert json.loads(mesh.pmp("destinations", "list", "--json").stdout) == [listed(mesh)]
    assert "crm" in mesh.pmp("destinations", "list").stdout
    assert (listed(mesh)["is_paused"], listed(mesh)["pause_reason"]) == (True, "the office moves")
    status = CliRunner().invoke(app, ["status"], env=mesh.environment)
    assert "the destination crm is paused: the office moves; `pmp destinations resume crm` sends to it again\n" in status.stdout
    assert status.exit_code == 0, "the mesh is ready"
    _visit(mesh, "paused-1", "paused-2")
    until(lambda: int(listed(mesh)["books"].get("pending", 0)) == 2)
    assert not {"paused-1", "paused-2"} & shop.events()
    assert mesh.pmp("destinations", "resume", "crm").stdout == "crm is sent to again\n"
    assert json.loads(CliRunner().invoke(app, ["status", "--json"], env=mesh.environment).stdout)["paused_destinations"] == []
    until(lambda: {"paused-1", "paused-2"} <= shop.events())
    answer = mesh.client.get(f"{mesh.url}/api/v1/deliveries", params={"event_id": "paused-1"}, headers=mesh.credentials("site"))
    (delivery,) = answer.json()["deliveries"]
    assert (delivery["destination"], delivery["name"]) == ("crm", "event.page_view")
    until(lambda: not int(listed(mesh)["books"].get("pending", 0)))
    since = datetime.now(UTC).strftime("%Y-%m-%d")
    dry_run = mesh.pmp("destinations", "replay", "crm", "--from", since, "--dry-run").stdout
    assert "would be delivered again; 0 are too old for crm" in dry_run
    refused = mesh.pmp("destinations", "resume", "nobody", check=False)
    assert (refused.returncode, refused.stderr.strip()) == (1, "pmp: 404 there is no destination nobody")


def test_dead_letters_are_listed_and_retried(mesh: Mesh, shop: Shop) -> None:
    shop.status = 422
    _visit(mesh, "refused")
    until(lambda: int(listed(mesh)["books"].get("dead_lettered", 0)) == 1)
    assert "HTTP 422" in mesh.pmp("destinations", "dead-letters", "crm").stdout
    shop.status = 200
    assert mesh.pmp("destinations", "retry", "crm", "--all").stdout == "1 dead letters of crm get another try\n"
    until(lambda: listed(mesh)["books"].get("dead_lettered", "0") == "0")


def test_a_service_that_is_killed_while_it_sends_forgets_nothing(mesh: Mesh, shop: Shop) -> None:
    ids = [f"killed-{number}" for number in range(EVENTS)]
    kills, killed = random.Random(1), 0  # noqa: S311
    for start in range(0, EVENTS, max(1, EVENTS // KILLS)):
        some = ids[start : start + max(1, EVENTS // KILLS)]
        for first in range(0, len(some), 100):
            _visit(mesh, *some[first : first + 100])
        until(lambda killed=killed: mesh.pid("destinations") not in (None, killed))
        time.sleep(kills.uniform(0.0, 0.5))
        killed = mesh.pid("destinations")
        mesh.kill("destinations")
    until(lambda: set(ids) <= shop.events(), 90)
    until(lambda: _settled(mesh), 90)
    by_event = Counter(event for event, _ in shop.received if event in set(ids))
    assert set(by_event.values()) == {1}, "a repetition has the same id"
    with closing(sqlite3.connect(f"file:{mesh.data}/destinations.db?mode=ro", uri=True)) as database:
        ((delivered, pending, kept),) = database.execute(
            "SELECT delivered, pending, (SELECT count(*) FROM deliveries WHERE state = 'delivered') FROM destinations"
        ).fetchall()
    assert (delivered, pending) == (kept, 0)


def _settled(mesh: Mesh) -> bool:
    try:
        return not int(listed(mesh)["books"].get("pending", 0))
    except Exception:  # noqa: BLE001 (it is being restarted)
        return False
