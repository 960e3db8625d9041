"""Debian's Prometheus on a running mesh: each alert fires by its reason, with shortened durations, and every metric exists."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from uuid import uuid4

import pytest
import yaml
from redis import Redis

from cli.layout import FOLLOWERS, Processes, roles_by_process
from deploy.monitoring.dashboards import DASHBOARDS
from deploy.monitoring.render import RECORDED
from services.ingestion.messages import RAW_TOPIC
from services.purchases.messages import TOPIC as PURCHASES
from tests.e2e.mesh import Mesh, running
from tests.e2e.test_gateway_tls import issue
from tests.metrics import measured
from tests.prometheus import Prometheus, shortened
from tests.servers import free_port
from tests.vendor import Unchanging, serving
from tests.webhooks import SECRET

ALERTS: Final = RECORDED.with_name("alerts.yaml")
PERSONS: Final = "identity"
"""Topic of the service that registers persons."""
LOG_BYTES: Final = 12_582_912
LONG: Final = "PMP_LONG_ALERTS" in os.environ
_WORKLOAD: Final = "$workload"


class Monitored:
    """A mesh, and the Prometheus that watches it."""

    def __init__(self, mesh: Mesh, prometheus: Prometheus) -> None:
        self.mesh = mesh
        self.prometheus = prometheus
        self.redis = Redis.from_url(mesh.state["redis_url"])
        self._begun: dict[Cause, ExitStack] = {}

    def post(self, path: str, body: Mapping[str, Any], scope: str = "site") -> int:
        """Calls the mesh; returns the status."""
        return self.mesh.client.post(f"{self.mesh.url}/api/v1/{path}", headers=self.mesh.credentials(scope), json=body).status_code

    def begin(self, *causes: Cause) -> None:
        """Begins those causes that have not begun yet."""
        for cause in causes:
            if cause not in self._begun:
                self._begun[cause] = ExitStack()
                self._begun[cause].enter_context(cause(self))

    def end_all(self) -> None:
        """Takes all causes away that have begun."""
        for begun in self._begun.values():
            begun.close()

    @contextmanager
    def paused(self, name: str) -> Generator[None]:
        """Pauses a process of the mesh."""
        process = self.mesh.pid(name)
        os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process, signal.SIGCONT)

    @contextmanager
    def leases_taken(self, topic: str, group: str) -> Generator[None]:
        """A process holds all leases of a group, and does nothing."""
        keys = [f"pmp:{{{topic}.{partition}}}:lease:{group}" for partition in range(self.mesh.state["log_partitions"])]
        for key in keys:
            self.redis.set(key, "a process that hangs")
        try:
            time.sleep(2.5)  # until those who held them have noticed
            yield
        finally:
            self.redis.delete(*keys)


Cause: TypeAlias = Callable[[Monitored], AbstractContextManager[None]]


def _events(count: int, **fields: str) -> list[dict[str, str]]:
    now = datetime.now(UTC).isoformat()
    return [{"id": str(uuid4()), "event_type": "page_view", "timestamp": now, "session_id": "s", **fields} for _ in range(count)]


@contextmanager
def _another_event_under_a_known_id(watched: Monitored) -> Generator[None]:
    (event,) = _events(1)
    assert watched.post("events/track", event) == 200
    assert watched.mesh.drained()["pending"] == 0
    assert watched.post("events/track", {**event, "page_title": "another"}) == 200
    yield


@contextmanager
def _orders_that_differ(watched: Monitored) -> Generator[None]:
    now = datetime.now(UTC).isoformat()
    found = {"shop": "woocommerce", "checked_at": now, "from": now, "to": now, "orders": 9, "found": 3, "different": 3}
    assert watched.post("comparisons", found, "admin") == 200
    yield


@contextmanager
def _a_backup_and_no_other(watched: Monitored) -> Generator[None]:
    watched.mesh.pmp("backup", str(watched.mesh.data.with_name("backups")))
    yield


@contextmanager
def _a_destination_that_refuses_and_is_paused(watched: Monitored) -> Generator[None]:
    assert watched.post("events/track", _events(1, event_type="lead_capture")[0]) == 200
    listed = f"{watched.mesh.url}/api/v1/destinations"
    while watched.mesh.client.get(listed, headers=watched.mesh.credentials("read")).text.count('"dead_lettered":"1"') == 0:
        time.sleep(0.5)
    watched.mesh.pmp("destinations", "pause", "crm")
    assert watched.post("events/track", _events(1, event_type="lead_capture")[0]) == 200
    yield


@contextmanager
def _a_relay_that_does_nothing(watched: Monitored) -> Generator[None]:
    with watched.leases_taken(PERSONS, "relay"):
        for number in range(1100 if LONG else 1):
            assert watched.post("users/register", {"email": f"person{number}@example.org"}) == 200
        yield


@contextmanager
def _a_topic_with_a_gap(watched: Monitored) -> Generator[None]:
    watched.redis.xadd(f"pmp:{{{PURCHASES}.0}}:log", {"p": b"", "n": 1, "h": 0}, id="1000-0")
    yield


@contextmanager
def _a_worker_that_does_nothing_until_the_log_is_full(watched: Monitored) -> Generator[None]:
    with watched.leases_taken(RAW_TOPIC, "ingestion"):
        for _ in range(21):
            assert watched.post("events/batch", {"events": _events(500)}) == 200
        while int(watched.redis.info("memory")["used_memory"]) < 0.97 * LOG_BYTES:
            assert watched.post("events/batch", {"events": _events(200, page_title="full " * 80)}) == 200
        yield


@contextmanager
def _a_redis_that_lost_everything(watched: Monitored) -> Generator[None]:
    with watched.leases_taken(RAW_TOPIC, "ingestion"):
        assert watched.post("events/batch", {"events": _events(7)}) in {200, 429}
        time.sleep(2)  # what was answered is recorded a second later
        watched.redis.flushall()
    yield


@contextmanager
def _a_process_that_stops_again_and_again(watched: Monitored) -> Generator[None]:
    for _ in range(4):
        with watched.paused(FOLLOWERS):
            time.sleep(5.5)
        time.sleep(3)
    yield


@contextmanager
def _a_redis_that_hangs(watched: Monitored) -> Generator[None]:
    with watched.paused("redis"):
        yield


@contextmanager
def _processes_that_died(watched: Monitored) -> Generator[None]:
    with watched.mesh.unattended():
        for name in roles_by_process(Processes.SHARED):
            watched.mesh.kill(name)
        for _ in range(2):
            for event in _events(15):
                assert watched.post("events/track", event) == 503
            time.sleep(4)  # until the last count was scraped
        yield


AT_ONCE: Final[Mapping[Cause, set[str]]] = {
    _another_event_under_a_known_id: {"MessagesWereSetAside"},
    _orders_that_differ: {"LedgerDiffersFromShop", "LedgerIsNotCompared"},
    _a_backup_and_no_other: {"BackupIsOld"},
    _a_destination_that_refuses_and_is_paused: {"DeliveriesWereGivenUp", "DestinationIsPaused", "DestinationLags"},
    _a_topic_with_a_gap: {"PartitionsAreHalted"},
    _a_relay_that_does_nothing: {"OutboxIsLate", "RelayIsStopped"},
    _a_worker_that_does_nothing_until_the_log_is_full: {*("LogFallsBehind", "LogIsLate", "ConsumerIsStopped", "LogFillsUp", "LogIsFull")},
}
"""What does not disturb each other: it begins together."""
LASTING: Final[Mapping[Cause, set[str]]] = {
    _a_redis_that_hangs: {"SourceIsOutOfReach"},
    _a_process_that_stops_again_and_again: {"LeasesFlap"},
}
"""With PMP_LONG_ALERTS alone: half a minute of waiting each."""
ONE_BY_ONE: Final[Mapping[Cause, set[str]]] = {
    _a_redis_that_lost_everything: {"BooksDoNotBalance"},
    **LASTING,
    _processes_that_died: {
        *("WorkloadIsGone", "PodDoesNotAnswer", "CallsFail", "BudgetBurnsFast", "BudgetBurnsSlowly"),
        *("BooksAreUnknown", "PersonsRequestsAreUnknown"),
    },
}
FROM_THE_BEGINNING: Final = {"CertificateExpires"}
"""The gateway is given a certificate of two days."""
MANY: Final = {"OutboxIsNotPublished"}
"""With PMP_LONG_ALERTS alone: a relay that does nothing lets it fire after a thousand calls."""
SAMPLED: Final = {
    "PersonsRequestIsDueInAWeek": "the deadline is 30 days after the request",
    "PersonsRequestIsDueInTwoDays": "the same",
    "PersonsRequestWaits": "a step is overdue after ten minutes of attempts",
}
"""Alerts whose reasons take longer than a test, and why: their samples in tests/shape/alerts.yaml are all that is tested."""


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    """URL of a system that refuses what it is sent."""
    with serving(double := Unchanging(status=422)):
        yield f"{double.url}/"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, refusing: str) -> Iterator[Monitored]:
    folder = tmp_path_factory.mktemp("monitored")
    (certificates := folder / "certificates").mkdir()
    issue(certificates)
    (folder / "destinations.toml").write_text(
        f'[crm]\nkind = "webhook"\nurl = "{refusing}"\nsecrets = ["CRM_SECRET"]\nconsent = "none"\n'
        'allow_private_networks = true\ntypes = ["event.lead_capture"]\n'
    )
    settings = {
        "PMP_DESTINATIONS": str(folder / "destinations.toml"),
        "CRM_SECRET": SECRET,
        "PMP_WEBHOOKS_STRIPE_SECRETS": '["whsec_stripe"]',
        "PMP_GATEWAY_TLS_LISTEN": f"127.0.0.1:{free_port()}",
        "PMP_GATEWAY_CERTIFICATES": str(certificates),
        "PMP_LOG_MAX_BYTES": str(LOG_BYTES),
    }
    (own := folder / "prometheus").mkdir()
    with running(folder / "mesh", environment=settings) as mesh, ExitStack() as stack:
        targets = {each["name"]: each["metrics_url"] for each in mesh.state["processes"] if each["metrics_url"]}
        prometheus = Prometheus(own, {path.name: shortened(path.read_text()) for path in (RECORDED, ALERTS)}, targets)
        stack.callback(prometheus.close)
        prometheus.start()
        monitored = Monitored(mesh, prometheus)
        stack.callback(monitored.redis.close)
        stack.callback(monitored.end_all)
        yield monitored


def test_every_alert_has_a_cause_or_a_reason_to_have_none() -> None:
    causes = {**AT_ONCE, **ONE_BY_ONE}
    caused = [*FROM_THE_BEGINNING, *MANY, *SAMPLED, *(alert for alerts in causes.values() for alert in alerts)]
    rules = [rule["alert"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert sorted(caused) == sorted(rules)


def test_nothing_fires_on_a_mesh_at_work_but_what_is_wrong_with_it(watched: Monitored) -> None:
    for event in _events(5):
        assert watched.post("events/track", event) == 200
    for path in ("analytics/dashboard", "events/accounting"):
        assert watched.mesh.client.get(f"{watched.mesh.url}/api/v1/{path}", headers=watched.mesh.credentials("read")).is_success
    unsigned = watched.mesh.client.post(f"{watched.mesh.url}/api/v1/webhooks/stripe", content=b"{}")
    assert unsigned.status_code == 401
    watched.prometheus.wait_for(FROM_THE_BEGINNING, 60)
    time.sleep(20)  # every gauge was read once
    assert watched.prometheus.firing() == FROM_THE_BEGINNING
    assert {rule["name"]: rule["lastError"] for rule in watched.prometheus.rules() if rule["health"] != "ok"} == {}


@pytest.mark.parametrize("cause", AT_ONCE, ids=lambda cause: cause.__name__)
def test_an_alert_fires_by_its_reason(watched: Monitored, cause: Cause) -> None:
    watched.begin(*AT_ONCE)
    expected = AT_ONCE[cause] | (MANY if LONG and cause is _a_relay_that_does_nothing else set[str]())
    watched.prometheus.wait_for(expected, 140)


@pytest.mark.parametrize("cause", [each for each in ONE_BY_ONE if LONG or each not in LASTING], ids=lambda cause: cause.__name__)
def test_an_alert_fires_by_a_reason_that_disturbs_others(watched: Monitored, cause: Cause) -> None:
    assert not ONE_BY_ONE[cause] & watched.prometheus.firing()
    watched.begin(cause)
    watched.prometheus.wait_for(ONE_BY_ONE[cause], 120)
    watched.end_all()


def test_every_metric_that_is_asked_for_was_scraped(watched: Monitored) -> None:
    shown = watched.prometheus.names()
    asked = {name for expression in _expressions() for name in _metrics(expression)}
    assert asked & measured()
    assert asked - shown == set()


def test_every_graph_can_be_drawn(watched: Monitored) -> None:
    """An expression that can't be evaluated is an answer of 400."""
    for expression in _expressions():
        watched.prometheus.query(expression)


def _expressions() -> Iterator[str]:
    """Those of rules, with all of their durations, and of dashboards."""
    for path in (RECORDED, ALERTS):
        yield from (rule["expr"] for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"])
    for dashboard in DASHBOARDS.values():
        for row in dashboard.rows:
            yield from (query.expr.replace(_WORKLOAD, FOLLOWERS) for panel in row.panels for query in panel.queries)


def _metrics(expression: str) -> set[str]:
    """The names of metrics in an expression, without the labels that stand in braces and brackets."""
    bare = re.sub(r"\{.*?\}|\b(by|on) \(.*?\)", "", expression)
    return set(re.findall(r"\b(?:pmp|envoy|rpc|db|process)[_:][\w:]+", bare))
