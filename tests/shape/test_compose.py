"""Holds the compose files to their schema, to the settings of the mesh, and to what Kubernetes is given of the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from cli.supervisor import LONGEST_DRAIN_SECONDS
from gateway.settings import GatewaySettings
from kit.settings import MeshSettings, Settings
from tests.roles import ROLES
from tests.shape.repository import ROOT, tracked_files

DEPLOY: Final = ROOT / "deploy"
LOCAL: Final = DEPLOY / "overlays" / "local"
SETTINGS: Final[dict[str, list[type[MeshSettings]]]] = {
    "mesh": [Settings, *(role.settings for role in ROLES.values())],
    "gateway": [GatewaySettings],
}
"""Those of each image."""
FILES: Final = {path.name: yaml.safe_load(path.read_text()) for path in DEPLOY.glob("compose*.yaml")}
DEVELOPMENT: Final[dict[str, Any]] = FILES["compose.yaml"]["services"]
SERVER: Final[dict[str, Any]] = FILES["compose.production.yaml"]["services"]["mesh"]
OPTIONS: Final = {"PMP_HOST", "PMP_PORT", "PMP_DATA", "PMP_BACKUPS", "PMP_BACKUP_KEEP"}
"""Of `pmp up` and `pmp backup`."""
SITE_SECRETS: Final = {"PMP_API_KEYS", "PMP_JWT_SECRETS", "PMP_SITE_ERASURE_SECRET"}
"""What the plugin is given."""
_VARIABLE: Final = re.compile(r"\$\{(\w+)(?::[?-][^}]*)?\}")


def fields(*images: str) -> set[str]:
    """The variables of the settings of images."""
    return {f"PMP_{field}".upper() for image in images for settings in SETTINGS[image] for field in settings.model_fields}


def own(service: dict[str, Any]) -> set[str]:
    return {name for name in service.get("environment", {}) if name.startswith("PMP_")}


def secrets(folder: Path) -> dict[str, str]:
    """What the script makes for development."""
    subprocess.run([DEPLOY / "compose" / "secrets.sh", folder / "env"], check=True)
    assert (folder / "env").stat().st_mode & 0o077 == 0
    return dict(line.split("=", 1) for line in (folder / "env").read_text().splitlines())


def filled(text: str, values: dict[str, str]) -> str:
    """A value as docker compose fills it in."""
    return _VARIABLE.sub(lambda match: values[match[1]], text)


def test_compose_takes_every_file() -> None:
    assert len(FILES) == 3
    check = [
        Path(sys.executable).with_name("check-jsonschema"),
        "--builtin-schema",
        "vendor.compose-spec",
        *(DEPLOY / name for name in FILES),
    ]
    ran = subprocess.run(check, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_what_a_container_is_given_is_a_field_of_its_settings() -> None:
    for name in ("migrate", "mesh"):
        assert own(DEVELOPMENT[name]) <= fields("mesh")
    assert own(DEVELOPMENT["gateway"]) <= fields("gateway")
    assert own(DEVELOPMENT["wordpress"]) == SITE_SECRETS
    for file in ("compose.production.yaml", "compose.tls.yaml"):
        assert own(FILES[file]["services"]["mesh"]) <= fields("mesh", "gateway") | OPTIONS


def test_containers_accept_their_settings_with_the_secrets_of_a_new_development(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = secrets(tmp_path)
    asked = set(re.findall(r"\$\{(\w+):\?", (DEPLOY / "compose.yaml").read_text()))
    assert asked == made.keys(), "each is made, and each is used"
    for name, settings in SETTINGS.items():
        with monkeypatch.context() as context:
            for variable, value in DEVELOPMENT[name]["environment"].items():
                context.setenv(variable, filled(value, made))
            for each in settings:
                assert each().mesh_token.get_secret_value() == made["PMP_MESH_TOKEN"]  # pyright: ignore[reportCallIssue]


def test_secrets_that_exist_stay(tmp_path: Path) -> None:
    assert secrets(tmp_path) == secrets(tmp_path)


def test_one_container_runs_every_role_and_its_schema_comes_first() -> None:
    assert DEVELOPMENT["mesh"]["command"] == ["all"]
    assert DEVELOPMENT["mesh"]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert DEVELOPMENT["migrate"]["environment"] == DEVELOPMENT["mesh"]["environment"]


def test_every_container_of_the_mesh_finds_the_services_in_another_container() -> None:
    for name in ("migrate", "mesh", "gateway"):
        addresses = {each: DEVELOPMENT[name]["environment"][each].split(":")[0] for each in ("PMP_SERVICE_ADDRESS", "PMP_STREAM_ADDRESS")}
        assert set(addresses.values()) <= DEVELOPMENT.keys(), (name, addresses)


def test_a_container_starts_once_what_it_needs_is_healthy() -> None:
    for name, service in DEVELOPMENT.items():
        for other, each in service.get("depends_on", {}).items():
            ends = each["condition"] == "service_completed_successfully"
            assert ends or (each["condition"] == "service_healthy" and "healthcheck" in DEVELOPMENT[other]), (name, other)


def test_the_ports_of_development_are_of_this_machine_alone() -> None:
    ports = {name: service["ports"] for name, service in DEVELOPMENT.items() if "ports" in service}
    published = {name: each.rsplit(":", 1)[0] for name, (each,) in ports.items()}
    assert all(each.startswith("127.0.0.1:") for each in published.values())
    wanted = {"wordpress": 8080, "gateway": 3000, "mysql": 3306, "redis": 6379}
    assert {name: int(published[name].rpartition(":")[2]) for name in wanted} == wanted
    assert len(set(published.values())) == len(published)


def test_stores_of_development_are_those_of_the_local_cluster() -> None:
    for name in ("mysql", "redis"):
        (pod,) = (one for one in yaml.safe_load_all((LOCAL / f"{name}.yaml").read_text()) if one["kind"] == "StatefulSet")
        (container,) = pod["spec"]["template"]["spec"]["containers"]
        assert (DEVELOPMENT[name]["image"], DEVELOPMENT[name].get("command")) == (container["image"], container.get("args"))
    (limit,) = re.findall(r"PMP_LOG_MAX_BYTES=(\d+)", (LOCAL / "kustomization.yaml").read_text())
    assert DEVELOPMENT["mesh"]["environment"]["PMP_LOG_MAX_BYTES"] == limit


def test_what_is_mounted_exists() -> None:
    kept = {f"{ROOT}/{path}" for path in tracked_files()}
    for name, service in ((name, each) for file in FILES.values() for name, each in file["services"].items()):
        for source in (each.split(":")[0] for each in service.get("volumes", [])):
            if source.startswith("."):
                path = (DEPLOY / source).resolve()
                made = path in {ROOT / "dashboard" / "dist", DEPLOY / "tls"}  # by `make setup`, and by the operator
                assert made or any(each == str(path) or each.startswith(f"{path}/") for each in kept), (name, source)


def test_a_shops_server_has_no_privileges_and_the_time_it_takes_to_drain() -> None:
    assert SERVER.items() >= {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"], "init": True}.items()
    assert int(SERVER["stop_grace_period"].removesuffix("s")) > LONGEST_DRAIN_SECONDS
    assert {each.rpartition(":")[2] for each in SERVER["volumes"]} == {"/var/lib/pmp", "/var/backups/pmp"}
    image = (DEPLOY / "Dockerfile").read_text()
    assert "ENV PMP_DATA=/var/lib/pmp PMP_BACKUPS=/var/backups/pmp" in image


def test_prometheus_of_development_reads_both_images() -> None:
    scraped = yaml.safe_load(FILES["compose.yaml"]["configs"]["prometheus"]["content"])["scrape_configs"]
    (job,) = scraped
    port = DEVELOPMENT["mesh"]["environment"]["PMP_METRICS_PORT"]
    assert {target for each in job["static_configs"] for target in each["targets"]} == {f"mesh:{port}", f"gateway:{port}"}
