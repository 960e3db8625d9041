"""Every alert comes when it has to, also when what it rests on is dead, and Prometheus finds what it rests on."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from deploy.monitoring.dashboards import DASHBOARDS
from deploy.monitoring.names import one_of
from deploy.monitoring.render import PAGES, RECORDED, rendered
from gateway.contracts import read_descriptors, rpcs
from tests.metrics import measured
from tests.shape.test_deploy_rendered import DEPLOY, OURS

CASES = Path(__file__).with_name("alerts.yaml")
COMPONENT = DEPLOY / "components" / "alerts"
RUNBOOK = DEPLOY.parent / "docs" / "runbook.md"


def rules() -> dict[str, dict[str, Any]]:
    """The alerts, by name."""
    return {rule["alert"]: rule for group in yaml.safe_load((COMPONENT / "alerts.yaml").read_text())["groups"] for rule in group["rules"]}


def promtool(*arguments: object) -> str:
    ran = subprocess.run(["promtool", *map(str, arguments)], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def link(alert: str) -> str:
    """The section of the runbook on an alert, as the headings of Markdown are linked to."""
    return f"docs/runbook.md#{alert.lower()}"


def test_each_alert_comes_when_it_has_to_and_only_then(tmp_path: Path) -> None:
    cases = yaml.load(CASES.read_text(), Loader=yaml.BaseLoader)  # noqa: S506 (texts alone: `0x60` is no number here)
    tests = cases["tests"]
    for each in (each for test in tests for each in test["alert_rule_test"]):
        for alert in each["exp_alerts"]:
            alert["exp_annotations"]["runbook_url"] = link(each["alertname"])
    cases["rule_files"] = [str(CASES.parent / path) for path in cases["rule_files"]]
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump(cases))
    promtool("test", "rules", tmp_path / "cases.yaml")
    expected = [(each["alertname"], bool(each["exp_alerts"])) for test in tests for each in test["alert_rule_test"]]
    assert {name for name, fires in expected if fires} == {name for name, fires in expected if not fires} == rules().keys()


def test_each_alert_links_to_its_section_of_the_runbook_and_each_section_is_of_an_alert() -> None:
    assert {name: rule["annotations"]["runbook_url"] for name, rule in rules().items()} == {name: link(name) for name in rules()}
    sections = re.split(r"^## ", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]
    assert [section.split("\n", 1)[0] for section in sections] == list(rules())
    for section in sections:
        assert re.search(r"^\* \*\*Means\*\*.*^\* \*\*Look\*\*.*^\* \*\*Notices\*\*", section, re.MULTILINE | re.DOTALL), section
        assert "**Do**" in section


def test_rules_and_dashboards_follow_from_the_code_that_measures() -> None:
    assert {path.name: path.read_text() for path in rendered()} == {path.name: text for path, text in rendered().items()}
    assert {path.stem for path in PAGES.iterdir()} == DASHBOARDS.keys()


def test_rules_ask_for_what_the_mesh_measures() -> None:
    asked = {
        name
        for rule in rules().values()
        for name in re.findall(r"\bpmp_[a-z_]+(?=[ {)[])", re.sub(r"by \(.*?\)|\{.*?\}", " ", rule["expr"]))
    }
    assert asked <= measured()
    recorded = {rule["record"] for group in yaml.safe_load(RECORDED.read_text())["groups"] for rule in group["rules"]}
    assert {name for rule in rules().values() for name in re.findall(r"\bpmp:[\w:]+", rule["expr"])} <= recorded


def test_every_rpc_of_the_gateway_counts_towards_the_objective_of_its_access() -> None:
    routed = rpcs(read_descriptors())
    counted = {each.name: each.objective for each in routed}
    assert (
        counted.items()
        >= {
            "TrackEvents": "intake",
            "TrackPurchase": "intake",
            "ReceiveWebhook": "intake",
            "GetUser": "reads",
            "GetDashboard": "reads",
            "DownloadArchive": "other",
            "StreamEvents": "other",
            "MergeUsers": "other",
            "SignIn": "other",
        }.items()
    )
    expressions = " ".join(rule["expr"] for group in yaml.safe_load(RECORDED.read_text())["groups"] for rule in group["rules"])
    named = set(re.split(r'[|"]', expressions))
    assert {each.objective for each in routed if one_of([f"{each.service}/{each.name}"]) in named} == {"intake", "reads"}
    assert {each.objective for each in routed if one_of([f"{each.service}/{each.name}"]) not in named} == {"other"}


def test_prometheus_takes_the_expression_of_every_graph(tmp_path: Path) -> None:
    expressions = [
        query.expr.replace("$workload", "ingestion-service")
        for dashboard in DASHBOARDS.values()
        for row in dashboard.rows
        for panel in row.panels
        for query in panel.queries
    ]
    recorded = [{"record": f"graph:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    (tmp_path / "graphs.yaml").write_text(yaml.safe_dump({"groups": [{"name": "graphs", "rules": recorded}]}))
    assert f"{len(expressions)} rules found" in promtool("check", "rules", tmp_path / "graphs.yaml")
    promtool("check", "rules", COMPONENT / "alerts.yaml", RECORDED)


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
