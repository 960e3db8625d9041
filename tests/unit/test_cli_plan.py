from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.addresses import checked_database_url, checked_redis_url
from cli.disk import Disk
from cli.embedded_redis import INTAKE_SHARE, LEAST_MEMORY, max_memory
from cli.errors import CommandFailed
from cli.folder import DataFolder
from cli.layout import Processes, service_names
from cli.local_secrets import Secrets
from cli.plan import Options, Plan, make_plan
from cli.ports import LOOPBACK, Ports

SECRETS = Secrets.generate()


def plan(
    tmp_path: Path,
    environ: dict[str, str] | None = None,
    *,
    host: str = "127.0.0.1",
    redis_url: str | None = None,
    processes: Processes = Processes.EACH,
    traces: bool = False,
) -> Plan:
    folder = DataFolder(tmp_path)
    folder.create()
    with Ports() as ports:
        options = Options(host, 8080, folder.database_url(), redis_url, processes, traces)
        return make_plan(options, folder, SECRETS, ports, environ or {"PATH": "/bin"})


def test_every_service_and_worker_gets_ports_of_its_own(tmp_path: Path) -> None:
    made = plan(tmp_path)
    assert {command.name for command in made.services if command.kind == "service"} == set(service_names())
    assert "ingestion-worker" in {command.name for command in made.services}
    ports = [command.environment[name] for command in made.services for name in ("PMP_LISTEN", "PMP_STREAM_LISTEN", "PMP_METRICS_PORT")]
    assert len(set(ports)) == len(ports)
    streams = {command.name: command.environment["PMP_STREAM_LISTEN"] for command in made.services if command.kind == "service"}
    assert json.loads(made.gateway.environment["PMP_STREAM_ADDRESSES"]) == streams
    assert {command.name: command.address for command in made.services if command.kind == "service"} == made.service_addresses


def test_the_intake_its_worker_and_all_other_services_are_three_processes(tmp_path: Path) -> None:
    made = plan(tmp_path, processes=Processes.SHARED)
    intake, worker, followers = made.services
    assert (intake.name, intake.roles, intake.argv[1:]) == ("ingestion", ("ingestion",), ("-m", "services", "ingestion"))
    assert followers.name == "followers"
    assert (worker.name, worker.roles, worker.kind) == ("ingestion-worker", ("ingestion-worker",), "worker")
    assert followers.roles == followers.argv[3:] == tuple(name for name in service_names() if name != "ingestion")
    assert intake.niceness == made.gateway.niceness == 0 < worker.niceness == followers.niceness
    assert made.service_addresses == {name: (intake if name == "ingestion" else followers).address for name in service_names()}


def test_secrets_go_only_where_they_are_needed(tmp_path: Path) -> None:
    made = plan(tmp_path)
    assert made.redis is not None
    clients = {SECRETS.api_keys[0], SECRETS.browser_api_keys[0], SECRETS.jwt_secrets[0]}
    for command in made.services:
        values = " ".join(command.environment.values())
        assert all(secret in values for secret in (SECRETS.vault_key, *SECRETS.key_encryption_keys))
        assert not any(secret in values for secret in clients)
    gateway = " ".join(made.gateway.environment.values())
    assert all(secret in gateway for secret in clients)
    assert not any(secret in gateway for secret in (SECRETS.vault_key, *SECRETS.key_encryption_keys))
    assert SECRETS.redis_password not in gateway
    assert list(made.redis.environment) == ["PATH"]
    for command in (*made.services, made.gateway, made.redis):
        assert not any(secret in " ".join(command.argv) for secret in (*clients, SECRETS.mesh_token, SECRETS.redis_password))


def test_the_gateways_admin_interface_is_a_socket_in_the_data_folder(tmp_path: Path) -> None:
    made = plan(tmp_path, host="0.0.0.0")
    assert made.gateway.environment["PMP_GATEWAY_ADMIN"] == str(tmp_path / "gateway.sock")
    metrics = made.gateway.environment["PMP_METRICS_PORT"]
    assert made.gateway.environment["PMP_METRICS_HOST"] == LOOPBACK
    assert made.gateway.metrics_url == f"http://{LOOPBACK}:{metrics}/metrics"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder in which a socket fits, however long the name of the user or of the test is."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_a_data_folder_with_a_long_path_has_its_socket_elsewhere(tmp_path: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))
    folder = tmp_path / ("long" * 30)
    admin = Path(plan(folder).gateway.environment["PMP_GATEWAY_ADMIN"])
    assert admin.parent.parent == short_path
    assert admin.parent.stat().st_mode & 0o777 == 0o700
    assert plan(folder).gateway.environment["PMP_GATEWAY_ADMIN"] == str(admin)
    admin.parent.chmod(0o755)
    with pytest.raises(CommandFailed, match="must be a folder of this user alone"):
        plan(folder)


def test_a_folder_for_the_socket_that_has_a_long_path_itself_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("long" * 30)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    admin = Path(plan(folder).gateway.environment["PMP_GATEWAY_ADMIN"])
    try:
        assert admin.parent.parent == Path("/tmp")  # noqa: S108 (the folder in it is this user's alone)
        assert admin.parent.stat().st_mode & 0o777 == 0o700
    finally:
        admin.parent.rmdir()


def test_settings_of_the_environment_reach_the_services(tmp_path: Path) -> None:
    chosen = {"PMP_LOG_LEVEL": "debug", "PMP_MESH_TOKEN": "somebody else's", "PMP_LOG_PARTITIONS": "2", "PMP_CERTIFICATES": "/of/a/cluster"}
    made = plan(tmp_path, {"PATH": "/bin", **chosen})
    assert {command.environment["PMP_LOG_LEVEL"] for command in (*made.services, made.gateway)} == {"debug"}
    assert {command.environment["PMP_MESH_TOKEN"] for command in (*made.services, made.gateway)} == {SECRETS.mesh_token}
    assert not any("PMP_CERTIFICATES" in command.environment for command in (*made.services, made.gateway))
    assert made.log_partitions == 2


def test_spans_are_kept_only_if_they_are_asked_for(tmp_path: Path) -> None:
    without = plan(tmp_path)
    assert without.traces is None
    assert not [name for command in (*without.services, without.gateway) for name in command.environment if name.startswith("OTEL_")]
    made = plan(tmp_path, traces=True)
    assert made.traces is not None
    endpoint = f"http://{made.traces.address}"
    assert {command.environment["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] for command in made.services} == {endpoint}
    # This one would have the services export their metrics as well.
    assert not [command.name for command in made.services if "OTEL_EXPORTER_OTLP_ENDPOINT" in command.environment]
    assert made.gateway.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == endpoint
    assert not set(made.traces.environment) - {"PATH", "PYTHONSAFEPATH"}
    with pytest.raises(CommandFailed, match="says where spans go"):
        plan(tmp_path, {"PATH": "/bin", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}, traces=True)


def test_a_setting_that_is_not_a_number_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="PMP_LOG_PARTITIONS must be a whole number"):
        plan(tmp_path, {"PMP_LOG_PARTITIONS": "many"})


def test_a_redis_of_ones_own_is_not_started(tmp_path: Path) -> None:
    made = plan(tmp_path, redis_url="redis://elsewhere:6379")
    assert made.redis is None
    assert {command.environment["PMP_REDIS_URL"] for command in made.services} == {"redis://elsewhere:6379"}


def test_the_services_see_the_disk_of_the_redis_that_the_mesh_runs(tmp_path: Path) -> None:
    made = plan(tmp_path, {"PMP_LOG_DISK_MIN_BYTES": "1000"})
    assert {command.environment["PMP_LOG_DISK"] for command in made.services} == {str(tmp_path / "redis")}
    assert made.disk == Disk(folder=tmp_path / "redis", least_bytes=1000)
    elsewhere = plan(tmp_path, redis_url="redis://elsewhere:6379")
    assert (elsewhere.disk, "PMP_LOG_DISK" in elsewhere.environment) == (None, False)


@pytest.mark.parametrize(("host", "url"), [("0.0.0.0", "http://127.0.0.1:8080"), ("::", "http://[::1]:8080"), ("::1", "http://[::1]:8080")])
def test_the_address_is_one_that_clients_reach(tmp_path: Path, host: str, url: str) -> None:
    assert plan(tmp_path, host=host).url == url


def test_redis_keeps_what_it_was_given(tmp_path: Path) -> None:
    plan(tmp_path)
    configuration = (tmp_path / "redis" / "redis.conf").read_text().splitlines()
    assert {"appendonly yes", "appendfsync always", "maxmemory-policy noeviction", "bind 127.0.0.1"} <= set(configuration)


def test_the_gateway_knows_every_service(tmp_path: Path) -> None:
    made = plan(tmp_path)
    assert json.loads(made.gateway.environment["PMP_SERVICE_ADDRESSES"]) == made.service_addresses


@pytest.mark.parametrize("log_max_bytes", [1_048_576, 268_435_456, 10_000_000_000])
def test_intake_leaves_room_in_redis(log_max_bytes: int) -> None:
    assert max_memory(log_max_bytes) >= LEAST_MEMORY
    assert log_max_bytes <= INTAKE_SHARE * max_memory(log_max_bytes)


@pytest.mark.parametrize("url", ["mysql+aiomysql://u:p@h/shop", "mysql://u:p@h/{service}", "postgresql+asyncpg://h/{service}"])
def test_a_database_that_services_cannot_use_is_refused(url: str) -> None:
    with pytest.raises(CommandFailed, match="the database URL must be like"):
        checked_database_url(url)


def test_a_url_of_no_redis_is_refused() -> None:
    with pytest.raises(CommandFailed, match="the Redis URL must be like"):
        checked_redis_url("http://localhost:6379")
