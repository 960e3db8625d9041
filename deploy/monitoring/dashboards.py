"""What the dashboards show: the mesh as a whole, one workload, and what the business notices."""

from __future__ import annotations

from typing import Final

from deploy.monitoring.grafana import Dashboard, Panel, Query, Row, Variable
from deploy.monitoring.names import (
    ACCOUNT,
    ANSWERS,
    CERTIFICATE_DAYS,
    CLASS,
    CONNECTIONS,
    GATEWAY,
    MEMORY,
    METHOD,
    PROCESSOR,
    ROUTE,
    ROUTE_MILLISECONDS,
    STATUS,
    TOPIC,
    bucket,
    count,
    total,
)
from kit.telemetry.names import Attribute, Metric, MetricName
from services.destinations.received.worker import Attribute as WebhookAttribute
from services.destinations.received.worker import MetricName as Webhooks
from services.destinations.upkeep import Attribute as DeliveryAttribute
from services.destinations.upkeep import MetricName as Deliveries
from services.gdpr.deadlines import MetricName as Requests
from services.purchases.comparison import MetricName as Comparisons

_DESTINATION: Final = DeliveryAttribute.DESTINATION.label
_SENDER: Final = WebhookAttribute.SENDER.label
_OUTCOME: Final = WebhookAttribute.OUTCOME.label
_WORKLOAD: Final = "workload"
_CHOSEN: Final = f'{_WORKLOAD}="${_WORKLOAD}"'


def _highest(metric: Metric, *labels: str, where: str = "") -> Query:
    """A gauge that every replica shows alike."""
    by = f" by ({', '.join(labels)})" if labels else ""
    return Query(f"max{by} ({metric.shown}{where})", " ".join(f"{{{{{label}}}}}" for label in labels) or metric)


def _quantile(quantile: float, buckets: str, by: str, where: str = "") -> Query:
    rate = f"sum by (le, {by}) (rate({buckets}{where}[5m]))"
    return Query(f"histogram_quantile({quantile}, {rate})", f"{{{{{by}}}}} {quantile:.0%}")


def _age(metric: Metric, *labels: str, where: str = "") -> Panel:
    return Panel(_TITLES[metric], "s", [_highest(metric, *labels, where=where)])


_TITLES: Final[dict[Metric, str]] = {
    MetricName.LOG_LAG_AGE: "Age of the oldest unprocessed message",
    MetricName.OUTBOX_AGE: "Age of the oldest unpublished entry",
    MetricName.REPORT_AGE: "Time since a source was read",
    MetricName.BACKUP_AGE: "Age of the last backup",
    Deliveries.OLDEST: "Age of the oldest delivery",
    Webhooks.BACKLOG_AGE: "Age of the oldest received webhook",
    Requests.REQUEST_LEFT: "Time left for the privacy request that is due first",
    Comparisons.AGE: "Time since the ledger was compared",
}

MESH: Final = Dashboard(
    "pmp-mesh",
    "PMP: mesh",
    [
        Row(
            "Promises",
            [
                Panel(
                    "Error budget, burned per hour",
                    "short",
                    [Query("pmp:objective_burn:ratio1h", "{{objective}}")],
                    "1 uses up exactly what 30 days allow; 14.4 wakes somebody.",
                ),
                Panel(
                    "Answers by status",
                    "reqps",
                    [Query(f"sum by ({CLASS}) (rate({ANSWERS}{{{GATEWAY}}}[5m]))", f"{{{{{CLASS}}}}}xx")],
                ),
                Panel(
                    "Time to answer",
                    "ms",
                    [_quantile(0.5, f"{ROUTE_MILLISECONDS}_bucket", ROUTE), _quantile(0.99, f"{ROUTE_MILLISECONDS}_bucket", ROUTE)],
                ),
            ],
        ),
        Row(
            "The log",
            [
                Panel("Unprocessed messages", "short", [_highest(MetricName.LOG_LAG, _WORKLOAD, TOPIC)]),
                _age(MetricName.LOG_LAG_AGE, _WORKLOAD, TOPIC),
                Panel(
                    "Memory of the log",
                    "bytes",
                    [_highest(MetricName.LOG_BYTES), Query(f"min ({MetricName.LOG_LIMIT.shown})", "intake stops here")],
                ),
                Panel("Unpublished entries", "short", [_highest(MetricName.OUTBOX_PENDING, TOPIC)]),
                _age(MetricName.OUTBOX_AGE, TOPIC),
                Panel("Halted partitions", "short", [_highest(MetricName.PARTITIONS_HALTED, _WORKLOAD, TOPIC)]),
                Panel("Dead letters", "short", [_highest(MetricName.DEAD_LETTERS, _WORKLOAD, Attribute.ROLE.label)]),
                Panel(
                    "Leases lost",
                    "short",
                    [Query(f"sum by ({_WORKLOAD}, {TOPIC}) (increase({total(MetricName.LEASES_LOST)}[15m]))", f"{{{{{TOPIC}}}}}")],
                    "Each is a process that was stopped or starved for longer than its lease lasts.",
                ),
                _age(MetricName.REPORT_AGE, _WORKLOAD, Attribute.SOURCE.label),
            ],
        ),
        Row(
            "Machines",
            [
                Panel("Processor", "short", [Query(f"sum by ({_WORKLOAD}) (rate({PROCESSOR}[5m]))", f"{{{{{_WORKLOAD}}}}}")]),
                Panel("Memory", "bytes", [Query(f"sum by ({_WORKLOAD}) ({MEMORY})", f"{{{{{_WORKLOAD}}}}}")]),
                Panel("Free disk of the log", "bytes", [_highest(MetricName.LOG_DISK_FREE)]),
                Panel("Connections of callers", "short", [Query(f"sum ({CONNECTIONS}{{{GATEWAY}}})", "connections")]),
                Panel("Days until the certificate expires", "short", [Query(f"min ({CERTIFICATE_DAYS})", "days")]),
                _age(MetricName.BACKUP_AGE),
            ],
        ),
    ],
)

_DURATION: Final = MetricName.CALL_DURATION

SERVICE: Final = Dashboard(
    "pmp-service",
    "PMP: one workload",
    [
        Row(
            "Calls",
            [
                Panel(
                    "Calls",
                    "reqps",
                    [Query(f"sum by ({METHOD}) (rate({count(_DURATION)}{{{_CHOSEN}}}[5m]))", f"{{{{{METHOD}}}}}")],
                ),
                Panel(
                    "Calls that were not OK",
                    "reqps",
                    [
                        Query(
                            f'sum by ({METHOD}, {STATUS}) (rate({count(_DURATION)}{{{_CHOSEN}, {STATUS}!="OK"}}[5m]))',
                            f"{{{{{METHOD}}}}} {{{{{STATUS}}}}}",
                        )
                    ],
                ),
                Panel("Time of 99 % of the calls", "s", [_quantile(0.99, bucket(_DURATION), METHOD, f"{{{_CHOSEN}}}")]),
            ],
        ),
        Row(
            "Topics",
            [
                Panel("Unprocessed messages", "short", [_highest(MetricName.LOG_LAG, TOPIC, where=f"{{{_CHOSEN}}}")]),
                _age(MetricName.LOG_LAG_AGE, TOPIC, where=f"{{{_CHOSEN}}}"),
                _age(MetricName.OUTBOX_AGE, TOPIC, where=f"{{{_CHOSEN}}}"),
            ],
        ),
        Row(
            "Pods",
            [
                Panel("Processor", "short", [Query(f"rate({PROCESSOR}{{{_CHOSEN}}}[5m])", "{{pod}}")]),
                Panel("Memory", "bytes", [Query(f"{MEMORY}{{{_CHOSEN}}}", "{{pod}}")]),
                Panel(
                    "Connections to databases in use",
                    "short",
                    [_highest(MetricName.POOL_USED, "pod", Attribute.POOL.label, where=f"{{{_CHOSEN}}}")],
                ),
            ],
        ),
    ],
    [Variable(_WORKLOAD, "up")],
)

BUSINESS: Final = Dashboard(
    "pmp-business",
    "PMP: business",
    [
        Row(
            "What the shop reports",
            [
                Panel(
                    "Events received per second",
                    "reqps",
                    [Query(f'max (deriv({MetricName.BOOKS.shown}{{{ACCOUNT}="received"}}[5m]))', "received")],
                ),
                Panel(
                    "Books",
                    "short",
                    [_highest(MetricName.BOOKS, ACCOUNT)],
                    "Everything received has an outcome. `missing` is what the log lost.",
                ),
                Panel(
                    "Orders that differ from the shop's",
                    "short",
                    [_highest(Comparisons.DIFFERENT)],
                    "After the newest nightly comparison.",
                ),
                _age(Comparisons.AGE),
                Panel(
                    "Webhooks received",
                    "reqps",
                    [
                        Query(
                            f"sum by ({_SENDER}, {_OUTCOME}) (rate({total(Webhooks.RECEIVED)}[5m]))",
                            f"{{{{{_SENDER}}}}} {{{{{_OUTCOME}}}}}",
                        )
                    ],
                ),
                _age(Webhooks.BACKLOG_AGE),
            ],
        ),
        Row(
            "What others are sent",
            [
                Panel("Deliveries that wait", "short", [_highest(Deliveries.PENDING, _DESTINATION)]),
                _age(Deliveries.OLDEST, _DESTINATION),
                Panel("Deliveries given up", "short", [_highest(Deliveries.DEAD, _DESTINATION)]),
            ],
        ),
        Row(
            "What the law asks for",
            [
                _age(Requests.REQUEST_LEFT),
                Panel("Steps of privacy requests that do not end", "short", [_highest(Requests.STEPS_OVERDUE)]),
            ],
        ),
    ],
)

DASHBOARDS: Final = {"mesh": MESH, "service": SERVICE, "business": BUSINESS}
"""By the name of their file."""
