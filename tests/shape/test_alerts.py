"""Every alert comes when it has to, also when what it rests on is dead, and Prometheus finds what it rests on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.shape.test_deploy_rendered import DEPLOY, OURS

CASES = Path(__file__).with_name("alerts.yaml")
COMPONENT = DEPLOY / "components" / "alerts"


def rules() -> dict[str, dict[str, Any]]:
    """The alerts, by name."""
    return {rule["alert"]: rule for group in yaml.safe_load((COMPONENT / "alerts.yaml").read_text())["groups"] for rule in group["rules"]}


def promtool(*arguments: object) -> str:
    ran = subprocess.run(["promtool", *map(str, arguments)], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_each_alert_comes_when_it_has_to_and_only_then() -> None:
    promtool("test", "rules", CASES)
    tests = yaml.safe_load(CASES.read_text())["tests"]
    expected = [(each["alertname"], bool(each["exp_alerts"])) for test in tests for each in test["alert_rule_test"]]
    assert {name for name, fires in expected if fires} == {name for name, fires in expected if not fires} == rules().keys()


def test_a_workload_is_missed_because_it_was_there_and_not_because_a_list_names_it() -> None:
    expression = rules()["WorkloadIsGone"]["expr"]
    assert [pod.name for pod in OURS if pod.name in expression] == []


def test_prometheus_finds_every_pod_under_the_names_that_the_alerts_ask_for(tmp_path: Path) -> None:
    """Debian's Prometheus has no Kubernetes discovery: the same rules get pods as Kubernetes would list them."""
    pods = {pod.name: pod.main["ports"] for pod in OURS if pod.overlay == "production"}
    config = yaml.safe_load((COMPONENT / "scrape.yaml").read_text())
    (job,) = config["scrape_configs"]
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod", "namespaces": {"names": ["pmp"]}}]
    job["static_configs"] = [
        {
            "targets": [f"10.0.0.1:{port['containerPort']}"],
            "labels": {
                "__meta_kubernetes_pod_name": f"{name}-7d9c5b8f6-x2x4x",
                "__meta_kubernetes_pod_controller_name": f"{name}-7d9c5b8f6",
                "__meta_kubernetes_pod_container_port_name": port["name"],
                "__meta_kubernetes_pod_phase": "Running",
            },
        }
        for name, ports in pods.items()
        for port in ports
    ]
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    found = json.loads(promtool("check", "service-discovery", "--timeout=5s", tmp_path / "prometheus.yaml", job["job_name"]))
    scraped = [(each["labels"]["workload"], each["labels"]["__address__"]) for each in found if each.get("labels")]
    assert sorted(scraped) == sorted((name, "10.0.0.1:9464") for name in pods)
    assert {each["labels"]["job"] for each in found if each.get("labels")} == {"pmp-mesh"}
