"""The routes and clusters of streams over HTTP."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.contracts import Rpc
from gateway.patterns import Node, endpoint, fill, origin_matcher
from gateway.settings import GatewaySettings


def stream_clusters(patterns: Node, methods: Sequence[Rpc], settings: GatewaySettings) -> list[Node]:
    """The clusters of the services that have streams."""
    return [
        fill(
            patterns["streams"],
            {"name": _cluster(service), "most_streams": settings.gateway_most_streams, **endpoint(settings.address_of_streams(service))},
        )
        for service in sorted({rpc.cluster for rpc in methods if rpc.stream})
    ]


def stream_routes(patterns: Node, rpc: Rpc, origins: Sequence[str]) -> list[Node]:
    """The route of a stream over HTTP and, before it, that of pages of other origins, which are denied.

    A WebSocket is open to pages of any origin: its request needs no permission from CORS.
    """
    values = {"name": f"GET {rpc.stream}", "rpc": rpc.path, "path": rpc.stream, "cluster": _cluster(rpc.cluster), "rules": None}
    allowed = fill(patterns["stream"], {**values, "headers": patterns["get"]})
    if "*" in origins:
        return [allowed]
    others = [{"name": "origin", "string_match": origin_matcher(origin), "invert_match": True} for origin in origins]
    headers = [*patterns["get"], {"name": "origin", "present_match": True}, *others]
    return [fill(patterns["stream"], {**values, "headers": headers, "rules": patterns["foreign"]}), allowed]


def _cluster(service: str) -> str:
    """The cluster of a service's streams over HTTP."""
    return f"{service}-streams"
