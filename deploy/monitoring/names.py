"""The names under which Prometheus shows what the mesh and its gateway measure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kit.telemetry.names import Attribute, Metric

METHOD: Final = Attribute.RPC_METHOD.label
STATUS: Final = Attribute.RPC_STATUS.label
TOPIC: Final = Attribute.TOPIC.label
ACCOUNT: Final = Attribute.ACCOUNT.label

# Of Envoy: https://www.envoyproxy.io/docs/envoy/latest/configuration/upstream/cluster_manager/cluster_stats and its neighbours.
ANSWERS: Final = "envoy_http_downstream_rq_xx"
"""Answers of the gateway by the first digit of their status."""
ROUTE_ANSWERS: Final = "envoy_vhost_route_upstream_rq_xx"
"""Answers of services, and of Envoy where a service did not answer. A gRPC error is an answer with 200."""
ROUTE_MILLISECONDS: Final = "envoy_vhost_route_upstream_rq_time"
"""Time that an answer took, in milliseconds: a histogram."""
CONNECTIONS: Final = "envoy_http_downstream_cx_active"
"""Connections of callers."""
CERTIFICATE_DAYS: Final = "envoy_server_days_until_first_cert_expiring"
"""Days that the certificate is valid for."""
CLASS: Final = "envoy_response_code_class"
ROUTE: Final = "envoy_route"
GATEWAY: Final = 'envoy_http_conn_manager_prefix="gateway"'
"""Connections of callers, not of Prometheus."""

MEMORY: Final = "process_resident_memory_bytes"
PROCESSOR: Final = "process_cpu_seconds_total"


def total(metric: Metric) -> str:
    """The name of a counter."""
    return f"{metric.shown}_total"


def count(metric: Metric) -> str:
    """The name of the count of a histogram."""
    return f"{metric.shown}_count"


def bucket(metric: Metric) -> str:
    """The name of the buckets of a histogram."""
    return f"{metric.shown}_bucket"


def one_of(values: Iterable[str]) -> str:
    """The regular expression, in a label matcher, of any of some values."""
    return "|".join(value.replace(".", r"\\.") for value in sorted(values))
