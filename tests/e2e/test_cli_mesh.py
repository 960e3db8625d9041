"""`pmp up` and the commands that manage its mesh."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import psutil
import pytest
import yaml
from typer.testing import CliRunner

from cli.__main__ import app
from cli.folder import DataFolder
from cli.layout import FORK_SERVER, Processes, service_names
from cli.local_secrets import Secrets
from tests.authority import MountedSecrets
from tests.e2e import nobody
from tests.e2e.mesh import PMP, Mesh, running
from tests.servers import free_port, niceness_of_session, until
from tests.webhooks import with_a_destination

ALERTS = Path(__file__).parents[2] / "deploy" / "components" / "alerts" / "alerts.yaml"
PROCESSES = ["redis", "gateway", FORK_SERVER, *service_names(), "ingestion-worker"]
_INTAKE = ("ingestion", "ingestion-worker")
TOGETHER = (("redis",), ("gateway",), (FORK_SERVER,), _INTAKE, tuple(name for name in service_names() if name not in _INTAKE))
"""Processes that are killed at once."""


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL at which a bank publishes its rates."""
    folder = tmp_path_factory.mktemp("bank")
    (folder / "rates.csv").write_text("Date,USD,JPY,\n2026-11-20,1.15,160.5,\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/rates.csv"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def mesh(bank: str) -> Iterator[Mesh]:
    """On an existing folder that every user of the machine can access, with files that they can read."""
    with TemporaryDirectory(prefix="pmp-") as parent:
        data = Path(parent) / "mesh"
        for folder in (data, data / "redis" / "appendonlydir", data / "logs"):
            folder.mkdir(parents=True)
        for file in (data / "purchases.db", data / "subject_keys.db", data / "redis" / "old.aof", data / "logs" / "identity.log"):
            file.touch()
            file.chmod(0o644)
        for folder in (Path(parent), data, data / "redis", data / "redis" / "appendonlydir", data / "logs"):
            folder.chmod(0o755)
        daily = {"PMP_SITE_RATES_URL": bank, "PMP_SITE_EXPORTS_URL": (data.parent / "store").as_uri()}
        with running(data, environment=daily | with_a_destination(Path(parent)), processes=Processes.EACH) as mesh:
            yield mesh


def printed(mesh: Mesh) -> str:
    return (mesh.data / "up.log").read_text()


def shell(mesh: Mesh, script: str) -> str:
    return subprocess.run(["bash", "-euc", script], env=mesh.environment, check=True, capture_output=True, text=True, timeout=60).stdout


def event(**fields: str) -> dict[str, str]:
    return {"id": str(uuid4()), "event_type": "page_view", "timestamp": datetime.now(UTC).isoformat(), **fields}


def track(mesh: Mesh, page: dict[str, str], scope: str = "site") -> int:
    return mesh.client.post(f"{mesh.url}/api/v1/events/track", json=page, headers=mesh.credentials(scope)).status_code


def letters(mesh: Mesh, command: str, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["dead-letters", command, "ingestion", *arguments], env={"PMP_DATA": str(mesh.data)})
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_the_printed_lines_send_an_event_that_is_stored(mesh: Mesh) -> None:
    stored = mesh.drained()["stored"]
    lines = [line.strip() for line in printed(mesh).splitlines() if line.startswith("  ")]
    assert [line.split()[0] for line in lines] == ["eval", "curl"]
    assert json.loads(shell(mesh, "\n".join(lines)))["success"] is True
    until(lambda: mesh.drained()["stored"] == stored + 1)


CALL = """-H "x-api-key: $PMP_API_KEY" -H "authorization: Bearer $PMP_TOKEN" -sS -o /dev/null -w '%{http_code}'"""


def test_exports_open_the_gateway(mesh: Mesh) -> None:
    script = f'eval "$({PMP} credentials --scope read)"; curl "$PMP_URL/api/v1/events/accounting" {CALL}'
    assert shell(mesh, script) == "200"


def test_header_lines_open_the_gateway(mesh: Mesh, tmp_path: Path) -> None:
    (tmp_path / "headers").write_text(mesh.pmp("credentials", "--scope", "admin", "--format", "headers").stdout)
    call = f'curl -sS -o /dev/null -w "%{{http_code}}" {mesh.url}/api/v1/events/accounting -H @{tmp_path}/headers'
    assert shell(mesh, call) == "200"


def test_json_opens_the_gateway(mesh: Mesh) -> None:
    made = json.loads(mesh.pmp("credentials", "--scope", "site", "--user", "42", "--format", "json").stdout)
    headers = {"x-api-key": made["api_key"], "authorization": f"Bearer {made['token']}"}
    assert mesh.client.post(f"{made['url']}/api/v1/events/track", json=event(user_id="42"), headers=headers).status_code == 200


def test_a_browser_may_track_and_nothing_else(mesh: Mesh) -> None:
    assert track(mesh, event(), "track") == 200
    assert mesh.client.get(f"{mesh.url}/api/v1/events/accounting", headers=mesh.credentials("track")).status_code == 403


def test_what_is_secret_is_private(mesh: Mesh) -> None:
    files = [mesh.data / name for name in ("secrets.json", "mesh.json", "redis/redis.conf", "logs/ingestion.log", "logs/gateway.log")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_no_port_of_the_gateway_is_envoys_admin_interface(mesh: Mesh) -> None:
    ports = {each.laddr.port for each in psutil.Process(mesh.pid("gateway")).net_connections("tcp") if each.status == psutil.CONN_LISTEN}
    assert len(ports) == 2
    for path in ("config_dump", "quitquitquit", "stats", "clusters"):
        assert {httpx.post(f"http://127.0.0.1:{port}/{path}").status_code for port in ports} <= {401, 404}
    assert stat.filemode((mesh.data / "gateway.sock").stat().st_mode) == "srw-------"


def test_nothing_in_the_folder_is_for_other_users(mesh: Mesh) -> None:
    everything = [mesh.data, *mesh.data.rglob("*")]
    assert {"subject_keys.db", "ingestion.db-wal", "appendonly.aof.1.incr.aof"} <= {path.name for path in everything}
    assert [path for path in everything if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
    assert re.search(rf"other users could read \d+ files and folders of {mesh.data}: they are closed now", printed(mesh))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_a_user_without_rights_gets_no_secret_and_no_person(mesh: Mesh) -> None:
    person = {"email": "grace.hopper@example.com", "first_name": "Grace-Brewster", "last_name": "Hopper-Murray"}
    registered = mesh.client.post(f"{mesh.url}/api/v1/users/register", json=person, headers=mesh.credentials("site"))
    assert registered.status_code == 200, registered.text
    assert track(mesh, event(user_id=registered.json()["user_id"])) == 200
    mesh.drained()
    kept = json.loads((mesh.data / "secrets.json").read_text())
    secrets = {value for secret in kept.values() for value in ([secret] if isinstance(secret, str) else secret)}
    running_before = [process["pid"] for process in mesh.state["processes"]]
    supervisor = psutil.Process(mesh.state["supervisor_pid"])
    processes = [supervisor, *supervisor.children(recursive=True)]
    listening = [
        each for process in processes for each in process.net_connections("all") if each.status == psutil.CONN_LISTEN or not each.raddr
    ]
    given = {
        "folder": str(mesh.data.parent),
        "files": [str(path) for path in mesh.data.rglob("*")],
        "pids": [process.pid for process in processes],
        "ports": sorted({each.laddr.port for each in listening if each.family == socket.AF_INET and each.status == psutil.CONN_LISTEN}),
        "sockets": sorted({each.laddr for each in listening if each.family == socket.AF_UNIX and each.laddr}),
    }
    assert len(given["ports"]) > len(PROCESSES)

    looked = subprocess.run(
        [sys.executable, nobody.__file__], input=json.dumps(given), check=False, capture_output=True, text=True, timeout=120
    )
    assert looked.returncode == 0, looked.stderr
    got: dict[str, str] = json.loads(looked.stdout)

    assert "pmp" in got[f"/proc/{supervisor.pid}/cmdline"], "it can look"
    assert '"status"' in got[f"port {mesh.state['port']}"] or "HTTP/1.1" in got[f"port {mesh.state['port']}"], "it can ask"
    leaked = {(where, value) for where, text in got.items() for value in (*secrets, *person.values()) if value in text}
    assert {where for where, _ in leaked} == set()
    assert [where for where in got if where.startswith((str(mesh.data), "/proc")) and not where.endswith(("/cmdline", "/mounts"))] == []
    assert [where for where, text in got.items() if where.startswith("socket") and text] == []
    assert mesh.pmp("status").returncode == 0, "nothing that it asked for was done"
    assert [process["pid"] for process in mesh.state["processes"]] == running_before


def test_redis_refuses_clients_without_its_password(mesh: Mesh) -> None:
    address = next(process["address"] for process in mesh.state["processes"] if process["name"] == "redis")
    host, port = address.split(":")
    assert shell(mesh, f"exec 3<>/dev/tcp/{host}/{port}; printf 'PING\\r\\n' >&3; head -n 1 <&3").startswith("-NOAUTH")


def test_exchange_rates_are_imported_by_themselves(mesh: Mesh) -> None:
    until(lambda: "exchange rates: 2 rates from 2026-11-20 to 2026-11-20; 0 orders that had none are priced." in printed(mesh))
    with closing(sqlite3.connect(f"file:{mesh.data}/purchases.db?mode=ro", uri=True)) as database:
        assert database.execute("SELECT count(*) FROM exchange_rates").fetchone() == (2,)


def test_closed_days_are_exported_by_themselves(mesh: Mesh) -> None:
    until(lambda: "exports: 4 files with 0 rows were written to file://" in printed(mesh))
    files = [path.relative_to(mesh.data.parent / "store") for path in (mesh.data.parent / "store").rglob("*.parquet")]
    assert sorted(file.parts[0] for file in files) == ["customers", "events", "orders", "sessions"]


def test_status_shows_every_process(mesh: Mesh) -> None:
    table = mesh.pmp("status").stdout
    assert all(name in table for name in PROCESSES)
    status = json.loads(mesh.pmp("status", "--json").stdout)
    assert status["ready"] is True
    assert [process["name"] for process in status["processes"]] == PROCESSES
    assert all(process["ready"] and process["pid"] for process in status["processes"])


@pytest.mark.skipif(niceness_of_session(os.getpid()) is None, reason="the kernel does not schedule sessions")
def test_all_roles_but_the_intake_yield_to_it(mesh: Mesh) -> None:
    yielding = {each["name"]: niceness_of_session(each["pid"]) for each in mesh.state["processes"] if each["roles"]}
    assert yielding.pop("ingestion") == 0
    assert yielding
    assert all(niceness and niceness > 0 for niceness in yielding.values()), yielding


def test_every_part_but_redis_and_the_fork_server_shows_its_metrics(mesh: Mesh) -> None:
    urls = {process["name"]: process["metrics_url"] for process in mesh.state["processes"]}
    assert urls.pop("redis") is urls.pop(FORK_SERVER) is None
    assert all("# TYPE" in mesh.client.get(url).text for url in urls.values())


def test_what_the_alerts_ask_for_is_shown_by_some_part(mesh: Mesh) -> None:
    rules = "\n".join(rule["expr"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"])
    asked = set(re.findall(r"\b(?:pmp|envoy)_\w+(?=[ {)[]|$)", re.sub(r"\{.*?\}|by \(.*?\)", "", rules), re.MULTILINE))
    assert track(mesh, event()) == 200
    now = datetime.now(UTC).isoformat()
    comparison = {"shop": "woocommerce", "checked_at": now, "from": now, "to": now, "orders": 1}
    assert mesh.client.post(f"{mesh.url}/api/v1/comparisons", headers=mesh.credentials("admin"), json=comparison).is_success
    mesh.pmp("backup", str(mesh.data.parent / "backups"))
    assert {"pmp_log_limit_bytes", "pmp_report_age_seconds", "pmp_backup_age_seconds", "envoy_http_downstream_rq_xx"} <= asked
    urls = [process["metrics_url"] for process in mesh.state["processes"] if process["metrics_url"]]
    until(lambda: asked <= {re.split("[ {]", line)[0] for url in urls for line in mesh.client.get(url).text.splitlines()})


def test_books_are_shown_and_balance(mesh: Mesh) -> None:
    assert track(mesh, event()) == 200
    mesh.drained()
    assert "balanced: every received event is accounted for" in mesh.pmp("books").stdout
    books = json.loads(mesh.pmp("books", "--json").stdout)
    assert books["balanced"] is True
    assert books["total"]["received"] == sum(hour["account"]["received"] for hour in books["hours"]) > 0


def test_a_pod_shows_services_and_books_by_its_own_settings(mesh: Mesh, tmp_path: Path) -> None:
    state, token = mesh.state, Secrets.load(DataFolder(mesh.data)).mesh_token
    secrets = MountedSecrets(tmp_path / "secrets", PMP_MESH_TOKEN=token, PMP_REDIS_URL=str(state["redis_url"]))

    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        own = {"PMP_DATA": str(tmp_path), "PMP_SERVICE_ADDRESSES": json.dumps(state["service_addresses"])}
        environment = mesh.environment | own | {"PMP_SECRETS_DIR": str(secrets.folder)} | settings
        return subprocess.run([PMP, *arguments], env=environment, check=False, capture_output=True, text=True, timeout=60)

    assert json.loads(run("books", "--json").stdout)["total"] == json.loads(mesh.pmp("books", "--json").stdout)["total"]
    shown = run("status")
    assert shown.returncode == 0, shown.stdout
    assert [line.split()[1] for line in shown.stdout.splitlines()[3:-1]] == [*service_names(), "redis"]
    assert str(urlsplit(str(state["redis_url"])).password) not in shown.stdout

    elsewhere = json.dumps({**state["service_addresses"], "ingestion": f"127.0.0.1:{free_port()}"})
    assert run("status", PMP_SERVICE_ADDRESSES=elsewhere).returncode == 1
    assert re.search(r"^pmp: ingestion at [\d.:]+ does not answer \(UNAVAILABLE", run("books", PMP_SERVICE_ADDRESSES=elsewhere).stderr)
    assert "does not answer (UNAUTHENTICATED" in run("books", PMP_MESH_TOKEN="wrong").stderr
    assert run("books", PMP_MESH_TOKEN="a,b,c").stderr == "pmp: PMP_MESH_TOKEN can't be read\n"
    assert run("books", PMP_SECRETS_DIR="/nowhere").stderr == "pmp: PMP_SECRETS_DIR: /nowhere: No such file or directory\n"
    assert run("books", PMP_SERVICE_ADDRESSES="no JSON").stderr.startswith("pmp: a setting is not JSON: ")


def test_a_second_mesh_on_the_folder_is_refused(mesh: Mesh) -> None:
    refusal = mesh.pmp("up", "--port", str(free_port()), check=False)
    assert refusal.returncode == 1
    assert f"another `pmp up` runs on {mesh.data}" in refusal.stderr
    assert mesh.pmp("status").returncode == 0


def test_a_port_in_use_is_reported(mesh: Mesh, tmp_path: Path) -> None:
    port = mesh.state["port"]
    refusal = mesh.pmp("up", "--port", str(port), "--data", str(tmp_path), check=False)
    assert refusal.returncode == 1
    assert f"port {port} is in use by another program" in refusal.stderr


@pytest.mark.parametrize("names", TOGETHER, ids="-".join)
def test_processes_that_are_killed_are_started_again_and_work(mesh: Mesh, names: Sequence[str]) -> None:
    stored, killed = mesh.drained()["stored"], {name: mesh.pid(name) for name in names}
    for name in names:
        mesh.kill(name)
    until(lambda: all(mesh.pid(name) not in (None, killed[name]) for name in names), 60)
    until(lambda: mesh.pmp("status", check=False).returncode == 0, 60)
    page = event()
    until(lambda: track(mesh, page) == 200)  # 503 until its neighbours have seen it again
    assert mesh.drained()["stored"] == stored + 1
    for name in names:
        assert re.search(rf"{name} was killed by SIGKILL; starting it again in [\d.]+ s", printed(mesh))
        assert f"{name} is ready again" in printed(mesh)


def test_the_figures_follow_what_happens_and_are_read_with_a_reading_token_alone(mesh: Mesh) -> None:
    session = f"visit-{uuid4()}"
    assert track(mesh, event(session_id=session, page_url="https://shop.example/pricing?utm_source=press")) == 200

    def visits() -> list[str]:
        listed = mesh.client.get(url, params={"report": "acquisition", "filter": "press"}, headers=mesh.credentials("read"))
        assert (listed.status_code, listed.headers["content-type"]) == (200, "text/csv; charset=utf-8")
        return [line for line in listed.text.splitlines() if line.startswith("press,1,1,1,")]

    url = f"{mesh.url}/api/v1/analytics/reports.csv"
    until(visits)
    figures = {each["key"]: each.get("value") for each in json.loads(mesh.pmp("report", "dashboard", "--json").stdout)["figures"]}
    assert figures["sessions"] >= 1
    assert figures["page_views"] >= 1
    assert re.search(r"visitors +\d+ +0 +visitors", mesh.pmp("report", "dashboard").stdout)
    refused = mesh.pmp("report", "dashboard", "--from", "2026-02-30", check=False)
    assert "from is no day; write YYYY-MM-DD" in refused.stderr
    assert mesh.client.get(url, params={"report": "content"}, headers=mesh.credentials("site")).status_code == 403
    wrong = mesh.client.get(url, params={"report": "gossip"}, headers=mesh.credentials("read"))
    assert (wrong.status_code, wrong.json()["code"]) == (400, 3)
    assert "there are revenue, acquisition" in wrong.json()["message"]


def test_services_that_lost_their_neighbours_log_json_and_nothing_else(mesh: Mesh) -> None:
    """After all processes were killed once, including those they were connected to."""
    logs = [mesh.data / "logs" / f"{name}.log" for name in (*service_names(), "ingestion-worker")]
    assert [line for log in logs for line in log.read_text().splitlines() if not line.startswith("{")] == []


def test_a_dead_letter_is_listed_shown_tried_again_and_dropped(mesh: Mesh) -> None:
    page = event()
    assert track(mesh, page) == 200
    assert mesh.drained()["pending"] == 0
    assert track(mesh, {**page, "page_title": "another"}) == 200  # the same id, another content
    until(lambda: mesh.drained()["dead_lettered"] == 1)
    assert "1 of ingestion's messages wait" in letters(mesh, "list")
    assert page["id"] in letters(mesh, "show", "1")
    assert "1 of ingestion's messages get another try" in letters(mesh, "retry", "1")
    until(lambda: "1 of ingestion's messages wait" in letters(mesh, "list"))  # it fails again
    assert "1 of ingestion's messages are given up" in letters(mesh, "drop", "--all")
    assert "None of ingestion's messages waits" in letters(mesh, "list")
    assert mesh.drained()["dead_lettered"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dead-letters", "retry", "ingestion", "999"], "not all of them are dead letters"),
        (["dead-letters", "show", "ingestion", "999"], "has no dead letter 999"),
        (["dead-letters", "drop", "ingestion"], "or all of them with --all"),
        (["dead-letters", "list", "nowhere"], "there is no service 'nowhere'"),
        (["replay", "ingestion", "--topic", "nothing"], "it consumes gdpr, identity"),
        (["migrate", "nowhere"], "there is no service 'nowhere'"),
    ],
)
def test_what_cannot_be_done_is_reported(mesh: Mesh, arguments: list[str], message: str) -> None:
    refusal = CliRunner().invoke(app, arguments, env={"PMP_DATA": str(mesh.data)})
    assert refusal.exit_code == 1
    assert message in refusal.stderr


def test_a_database_that_is_up_to_date_stays_so(mesh: Mesh) -> None:
    assert mesh.pmp("migrate", "ingestion").stdout == "ingestion: newest version\n"


def test_nothing_outlives_a_supervisor_that_is_killed(mesh: Mesh) -> None:
    pids = [process["pid"] for process in mesh.state["processes"]]
    os.kill(mesh.state["supervisor_pid"], signal.SIGKILL)
    until(lambda: not any(map(psutil.pid_exists, pids)))
    left = mesh.pmp("status", check=False)
    assert left.returncode == 1
    assert "run `pmp up` first" in left.stderr
