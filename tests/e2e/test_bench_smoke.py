from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

every_bench = pytest.mark.skipif("PMP_BENCHES" not in os.environ, reason="PMP_BENCHES=1 runs every part of the bench")


def measured(part: str, results: Path) -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--only", part, "--results", str(results)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    [result] = results.iterdir()
    return json.loads(result.read_text())


@every_bench
def test_intake_is_measured_beside_the_empty_service(tmp_path: Path) -> None:
    figures = measured("intake", tmp_path)
    assert [each["events_per_request"] for each in figures["intake"]["compared"]] == [1, 100]
    for each in figures["intake"]["compared"]:
        assert each["ratios"] == [each["real"]["rounds"][0] / each["empty"]["rounds"][0]]
        assert {"gateway", "ingestion", "redis", "wrk"} == each["real"]["cpu_us_per_request"].keys()
        assert each["real"]["p99_ms"] >= each["real"]["p50_ms"] > 0
    assert figures["intake"]["into_sqlite"]["events"] > 0
    assert figures["into_mariadb"] is None


@pytest.fixture(scope="module")
def worker_figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return measured("worker", tmp_path_factory.mktemp("results"))


@every_bench
def test_worker_is_measured_into_mariadb(worker_figures: dict[str, Any]) -> None:
    assert worker_figures["into_mariadb"]["events"] == 5000
    assert worker_figures["into_mariadb"]["per_second"] > 0
    assert {"ingestion-worker", "mariadb"} <= worker_figures["into_mariadb"]["cpu_us_per_event"].keys()
    assert worker_figures["intake"] is None


@every_bench
def test_result_describes_the_machine_without_identifying_it(worker_figures: dict[str, Any]) -> None:
    facts = {"cpu", "cores", "memory_gib", "kernel", "load_average_before", "sync_ms", "python", "redis_server", "packages", "mariadb"}
    assert worker_figures["machine"].keys() == facts
    text = json.dumps(worker_figures)
    for place in (Path.home(), Path(sys.prefix).parent):
        assert str(place) not in text


@every_bench
@pytest.mark.timeout(320)
def test_a_whole_mesh_is_measured(tmp_path: Path) -> None:
    figures = measured("mesh", tmp_path)["mesh"]
    assert figures.keys() == {"sqlite"}
    for mesh in figures.values():
        assert [each["name"] for each in mesh["offered"]] == ["steady", "api_load", "website_traffic"]
        assert all(each["answers"]["p99_ms"] >= each["answers"]["p95_ms"] > 0 for each in mesh["offered"])
        assert all(each["cost"]["written_bytes_per_event"] > 0 for each in mesh["offered"])
        for each in mesh["sustained"]:
            assert each["ratio"] == each["per_second"] / each["empty_per_second"]
            assert each["per_second"] <= each["answered_per_second"]
        assert mesh["followed"]["in_journey_max_ms"] >= mesh["followed"]["stored_p50_ms"] > 0
        assert {"redis", "gateway", "ingestion"} <= mesh["pss_mib"].keys()


@every_bench
def test_the_shop_is_measured_beside_a_bare_insert(tmp_path: Path) -> None:
    figures = measured("shop", tmp_path)["shop"]
    calls = ("bare_insert", "track_purchase", "register_user", "get_user_journey")
    assert [figures[name]["calls"] for name in calls] == [100] * 4
    assert all(figures[name]["p99_ms"] >= figures[name]["p50_ms"] > 0 for name in calls)
    assert (figures["touchpoints"], figures["funnel_seconds"] > 0) == (10_000, True)
    assert {"mariadb", "identity", "journeys", "purchases", "gateway"} == figures["cpu_us_per_call"].keys()


@every_bench
def test_the_plugin_is_measured_beside_its_absence(tmp_path: Path) -> None:
    figures = measured("wordpress", tmp_path)["wordpress"]
    assert [figures[what]["pairs"] for what in ("page_view", "checkout")] == [10, 10]
    assert all(figures[what]["off_p50_ms"] > 0 and figures[what]["ratio"] > 0 for what in figures)


def test_live_streams_are_measured(tmp_path: Path) -> None:
    figures = measured("realtime", tmp_path)["realtime"]
    assert (figures["clients"], figures["unread"], figures["events"]) == (60, 5, 200)
    assert figures["max_ms"] >= figures["p99_ms"] >= figures["p50_ms"] > 0
    assert {"followers", "gateway", "redis"} <= figures["peak_mib"].keys()


@every_bench
def test_deliveries_are_measured_beside_the_http_client_alone(tmp_path: Path) -> None:
    figures = measured("deliveries", tmp_path)["deliveries"]
    assert (figures["per_second"], figures["events"]) == (20, 40)
    assert figures["max_ms"] >= figures["p99_ms"] >= figures["p50_ms"] > 0
    assert figures["peak_mib"] >= figures["idle_mib"] > 0
    assert figures["cpu_us_per_delivery"] > figures["bare_cpu_us"] > 0


@every_bench
def test_reports_are_measured_beside_counting_their_orders(tmp_path: Path) -> None:
    figures = measured("attribution", tmp_path)["attribution"]
    assert (figures["orders"], figures["reports"].keys(), figures["count_ms"].keys()) == (
        1000,
        {"mariadb", "sqlite"},
        {"mariadb", "sqlite"},
    )
    for models in figures["reports"].values():
        assert len(models) == 7
        assert all(report["p95_ms"] >= report["p50_ms"] > 0 and report["ratio"] > 0 for report in models.values())


@every_bench
def test_dashboards_are_measured_beside_counting_sessions(tmp_path: Path) -> None:
    figures = measured("analytics", tmp_path)["analytics"]
    assert figures.keys() == {"mariadb", "sqlite"}
    for database, each in figures.items():
        filled = each["projection"]
        assert (filled["events"] > filled["sessions"] > filled["orders"] > 0, filled["bytes_per_event"] > 0) == (True, True)
        assert filled["cpu_us_per_event"].keys() == {"analytics"} | ({"mariadb"} if database == "mariadb" else set())
        assert each["dashboards"].keys() == {"a day", "a month", "a year"}
        assert {"revenue by day", "content by course", "customers by customer"} <= each["reports"].keys()
        answers = [*each["dashboards"].values(), *each["reports"].values()]
        assert all(answer["p95_ms"] >= answer["p50_ms"] > 0 and answer["ratio"] > 0 for answer in answers)
