"""The names of spans, metrics and attributes. Metrics of a single service are named in that service."""

from __future__ import annotations

from enum import StrEnum


class SpanName(StrEnum):
    """Names of spans. An rpc's span is named after its method, an SQL span after its verb."""

    APPEND = "log append"
    CONSUME = "log consume"
    PUBLISH = "outbox publish"
    DELIVER = "deliver"


class MetricName(StrEnum):
    """Names of metrics, as OpenTelemetry writes them: Prometheus shows `_` for `.` and appends the unit."""

    CALL_DURATION = "rpc.server.call.duration"
    LOG_LAG = "pmp.log.lag"
    LOG_BYTES = "pmp.log.bytes"
    LOG_LIMIT = "pmp.log.limit"
    LOG_DISK_FREE = "pmp.log.disk.free"
    OUTBOX_PENDING = "pmp.outbox.pending"
    DEAD_LETTERS = "pmp.dead_letters"
    PARTITIONS_HALTED = "pmp.partitions.halted"
    BOOKS = "pmp.books"
    REPORT_AGE = "pmp.report.age"
    BODY_FAULTS = "pmp.body.faults"
    POOL_USED = "db.client.connection.count"


class Attribute(StrEnum):
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
