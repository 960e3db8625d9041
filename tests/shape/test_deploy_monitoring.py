"""The component `monitoring`: a collector that all processes reach and nobody else does, and dashboards that Grafana finds."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.monitoring.dashboards import DASHBOARDS
from tests.shape.test_deploy_rendered import DEPLOY, NOBODY, OURS, ROOT, TOOLS, UNPRIVILEGED, objects_of, render

SCHEMA = ROOT / "tests" / "shape" / "collector.schema.yaml"

Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def objects() -> list[Manifest]:
    return list(yaml.safe_load_all(render("production", "monitoring")))


def _find(objects: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = (each for each in objects if each["kind"] == kind and re.fullmatch(rf"{name}(-[a-z0-9]{{10}})?", each["metadata"]["name"]))
    return found


@pytest.fixture(scope="module")
def config(objects: list[Manifest]) -> Manifest:
    return yaml.safe_load(_find(objects, "ConfigMap", "collector")["data"]["config.yaml"])


def test_what_it_renders_is_valid(objects: list[Manifest], tmp_path: Path) -> None:
    (tmp_path / "rendered.yaml").write_text(yaml.safe_dump_all(objects))
    ran = subprocess.run(
        [TOOLS / "kubernetes-validate", "--strict", tmp_path / "rendered.yaml"], check=False, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_collector_is_hardened_and_reads_its_config(objects: list[Manifest]) -> None:
    spec = _find(objects, "Deployment", "collector")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"].items() >= NOBODY.items()
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"] == UNPRIVILEGED
    (mounted,) = container["volumeMounts"]
    assert container["args"] == [f"--config={mounted['mountPath']}/config.yaml"]
    (volume,) = spec["volumes"]
    assert volume["configMap"]["name"] == _find(objects, "ConfigMap", "collector")["metadata"]["name"]
    named = {each["name"] for each in container["env"]}
    assert set(re.findall(r"\$\{env:(\w+)\}", json.dumps(_find(objects, "ConfigMap", "collector")["data"]))) == named


def _refused(folder: Path, configs: list[Manifest]) -> set[int]:
    """The places of configurations of the collector that have something that its version does not know."""
    files = [folder / f"{place}.json" for place in range(len(configs))]
    for file, config in zip(files, configs, strict=True):
        file.write_text(json.dumps(config))
    ran = subprocess.run(
        [TOOLS / "check-jsonschema", "--output-format", "json", "--schemafile", SCHEMA, *files], check=False, capture_output=True, text=True
    )
    return {int(Path(each["filename"]).stem) for each in json.loads(ran.stdout)["errors"]}


def _misspelt(config: Any) -> Iterator[Any]:
    """Copies of a configuration, each with another key misspelt; but not those of headers, which may be any."""
    if isinstance(config, list):
        for place, each in enumerate(config):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            for changed in _misspelt(each):
                yield [*config[:place], changed, *config[place + 1 :]]
    elif isinstance(config, dict):
        for key, value in config.items():  # pyright: ignore[reportUnknownVariableType]
            yield {**{other: each for other, each in config.items() if other != key}, f"{key}s": value}  # pyright: ignore[reportUnknownVariableType]
            if key != "headers":
                for changed in _misspelt(value):
                    yield {**config, key: changed}


def test_its_version_knows_all_of_its_config(config: Manifest, tmp_path: Path) -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert _refused(tmp_path, [config, yaml.safe_load(compose["configs"]["collector"]["content"])]) == set()
    misspelt = list(_misspelt(config))
    assert len(misspelt) > 40
    assert _refused(tmp_path, misspelt) == {*range(len(misspelt))}


def test_it_is_the_version_whose_config_was_looked_up(objects: list[Manifest]) -> None:
    (container,) = _find(objects, "Deployment", "collector")["spec"]["template"]["spec"]["containers"]
    (version,) = re.findall("Collector ([0-9.]+)", SCHEMA.read_text())
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert compose["services"]["collector"]["image"] == container["image"]
    assert container["image"].partition(":")[2] == version


def test_every_part_of_its_config_is_used_and_every_port_is_the_containers(objects: list[Manifest], config: Manifest) -> None:
    (pipeline,) = config["service"]["pipelines"].values()
    assert {kind: set(names) for kind, names in pipeline.items()} == {
        kind: set(config[kind]) for kind in ("receivers", "processors", "exporters")
    }
    assert pipeline["processors"][0] == "memory_limiter"
    assert config["service"]["extensions"] == list(config["extensions"])
    (container,) = _find(objects, "Deployment", "collector")["spec"]["template"]["spec"]["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    (reader,) = config["service"]["telemetry"]["metrics"]["readers"]
    assert ports == {
        "otlp": int(config["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].rpartition(":")[2]),
        "health": int(config["extensions"]["health_check"]["endpoint"].rpartition(":")[2]),
        "metrics": reader["pull"]["exporter"]["prometheus"]["port"],
    }


def test_every_process_sends_its_traces_there_and_may(objects: list[Manifest]) -> None:
    policy = _find(objects, "NetworkPolicy", "collector")["spec"]
    admitted = policy["ingress"][0]["from"][0]["podSelector"]["matchExpressions"][0]["values"]
    for pod in (pod for pod in OURS if pod.overlay == "production"):
        container = _find(objects, "Deployment", pod.name)["spec"]["template"]["spec"]["containers"][0]
        added = [each for each in container["env"] if each not in pod.main["env"]]
        assert [each["value"] for each in added] == ["http://collector:4317"]
        assert added[0]["name"] == ("OTEL_EXPORTER_OTLP_ENDPOINT" if pod.name == "gateway" else "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        assert pod.labels["app.kubernetes.io/component"] in admitted
    assert [each["port"] for each in policy["ingress"][0]["ports"]] == ["otlp"]


def test_grafana_finds_the_dashboards(objects: list[Manifest]) -> None:
    found = _find(objects, "ConfigMap", "dashboards")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    models = {name.removesuffix(".json"): json.loads(text) for name, text in found["data"].items()}
    assert {name: model["title"] for name, model in models.items()} == {name: each.title for name, each in DASHBOARDS.items()}
    for model in models.values():
        ids = [panel["id"] for panel in model["panels"]]
        assert len(set(ids)) == len(ids)
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in model["panels"]]
        assert len(set(places)) == len(places), "no panel hides another"
        asked = {
            name for panel in model["panels"] for target in panel.get("targets", []) for name in re.findall(r"\$(\w+)", target["expr"])
        }
        assert asked <= {variable["name"] for variable in model["templating"]["list"]}


def test_nothing_else_changes(objects: list[Manifest]) -> None:
    after = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    before = {(each["kind"], each["metadata"]["name"]): each for each in objects_of("production", *{kind for kind, _ in after})}
    assert before.keys() <= after.keys()
    assert {kind for kind, name in before if after[kind, name] != before[kind, name]} == {"Deployment"}
