"""The names of spans, metrics and attributes. Metrics of a single service are named in that service."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Self

_SUFFIXES: Final = {"s": "_seconds", "By": "_bytes"}
"""What Prometheus appends to a name that does not end with it, by its unit. Units in braces say what is counted, and append nothing."""


class Metric(StrEnum):
    """A metric: its name as OpenTelemetry writes it, and its unit. An enum of a service's own metrics derives from it."""

    _value_: str
    unit: str

    def __new__(cls, name: str, unit: str) -> Self:
        """Names a metric.

        Args:
            name: with dots.
            unit: in UCUM, such as `s`, `By` or `{message}`.
        """
        member = str.__new__(cls, name)
        member._value_ = name
        member.unit = unit
        return member

    @property
    def shown(self) -> str:
        """The name of it as a gauge in Prometheus; a counter has `_total` after it, a histogram `_bucket`, `_count` and `_sum`."""
        name, suffix = self.replace(".", "_"), _SUFFIXES.get(self.unit, "")
        return name if name.endswith(suffix) else name + suffix


class SpanName(StrEnum):
    """Names of spans. An rpc's span is named after its method, an SQL span after its verb."""

    APPEND = "log append"
    CONSUME = "log consume"
    PUBLISH = "outbox publish"
    DELIVER = "deliver"


class MetricName(Metric):
    """The metrics of all services."""

    CALL_DURATION = "rpc.server.call.duration", "s"
    LOG_LAG = "pmp.log.lag", "{message}"
    LOG_LAG_AGE = "pmp.log.lag.age", "s"
    LOG_BYTES = "pmp.log.bytes", "By"
    LOG_LIMIT = "pmp.log.limit", "By"
    LOG_DISK_FREE = "pmp.log.disk.free", "By"
    OUTBOX_PENDING = "pmp.outbox.pending", "{entry}"
    OUTBOX_AGE = "pmp.outbox.age", "s"
    LEASES_LOST = "pmp.leases.lost", "{time}"
    DEAD_LETTERS = "pmp.dead_letters", "{message}"
    PARTITIONS_HALTED = "pmp.partitions.halted", "{partition}"
    BOOKS = "pmp.books", "{message}"
    BACKUP_AGE = "pmp.backup.age", "s"
    REPORT_AGE = "pmp.report.age", "s"
    BODY_FAULTS = "pmp.body.faults", "{field}"
    POOL_USED = "db.client.connection.count", "{connection}"


class AttributeName(StrEnum):
    """Names of attributes. An enum of a service's own attributes derives from it."""

    @property
    def label(self) -> str:
        """The name of it as a label in Prometheus."""
        return self.replace(".", "_")


class Attribute(AttributeName):
    """Names of attributes of spans and metrics: OpenTelemetry's own where it has one."""

    ROLE = "pmp.role"
    RPC_METHOD = "rpc.method"
    RPC_STATUS = "rpc.response.status_code"
    CLIENT = "pmp.client"
    SCOPE = "pmp.scope"
    TOPIC = "messaging.destination.name"
    PARTITION = "messaging.destination.partition.id"
    GROUP = "messaging.consumer.group.name"
    MESSAGES = "messaging.batch.message_count"
    POSITION = "pmp.log.position"
    ACCOUNT = "pmp.account"
    SOURCE = "pmp.report.source"
    DB_SYSTEM = "db.system.name"
    DB_STATEMENT = "db.query.text"
    DB_NAME = "db.namespace"
    DESTINATION = "pmp.delivery.destination"
    OUTCOME = "pmp.delivery.outcome"
    FAULT = "pmp.fault"
    POOL = "db.client.connection.pool.name"
    ERROR = "error.type"
