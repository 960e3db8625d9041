"""The routes and clusters of streams over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from gateway.contracts import Rpc
from gateway.patterns import Node, endpoint, fill, origin_matcher
from gateway.settings import DASHBOARD, GatewaySettings
from gateway.tls import to_service

_OPTIONAL: Final = dict.fromkeys(("rules", "mutations", "api_key", "protocols", "own_origin"))


def stream_clusters(patterns: Node, methods: Sequence[Rpc], settings: GatewaySettings) -> list[Node]:
    """The clusters of the services that have streams."""
    return [_stream_cluster(patterns, service, settings) for service in sorted({rpc.cluster for rpc in methods if rpc.stream})]


def _stream_cluster(patterns: Node, service: str, settings: GatewaySettings) -> Node:
    address = settings.address_of_streams(service)
    transport = to_service(patterns, settings, address, "http/1.1")
    return fill(
        patterns["streams"],
        {"name": _cluster(service), "most_streams": settings.gateway_most_streams, "transport": transport, **endpoint(address)},
    )


def stream_routes(patterns: Node, rpc: Rpc, origins: Sequence[str]) -> list[Node]:
    """The route of a stream over HTTP and, before it, that of pages of other origins, which are denied.

    A WebSocket is open to pages of any origin: its request needs no permission from CORS.
    """
    get, protocols = patterns["get"], patterns["lua"]
    allowed = _route(patterns, rpc, headers=get, protocols=protocols)
    if "*" in origins:
        return [allowed]
    others = [{"name": "origin", "string_match": origin_matcher(origin), "invert_match": True} for origin in origins]
    headers = [*get, {"name": "origin", "present_match": True}, *others]
    return [_route(patterns, rpc, headers=headers, protocols=protocols, rules=patterns["foreign"]), allowed]


def session_stream_route(patterns: Node, rpc: Rpc) -> Node:
    """The route of a stream that a session of the dashboard opens, for the gateway's own pages only.

    The filter `own_origin` refuses those of others: a route without an upgrade would not say why.
    """
    named = fill(patterns["named"], {"client": DASHBOARD})
    return _route(
        patterns,
        rpc,
        name=f"{DASHBOARD} GET {rpc.stream}",
        headers=[*patterns["get"], *patterns["session"]],
        mutations=fill(patterns["mutations"], {"mutations": [named]}),
        api_key=patterns["keyless"],
        own_origin=patterns["lua"],
    )


def _route(patterns: Node, rpc: Rpc, **values: Any) -> Node:
    named = {"name": f"GET {rpc.stream}", "rpc": rpc.path, "path": rpc.stream, "cluster": _cluster(rpc.cluster)}
    return fill(patterns["stream"], {**named, **_OPTIONAL, **values})


def _cluster(service: str) -> str:
    """The cluster of a service's streams over HTTP."""
    return f"{service}-streams"
