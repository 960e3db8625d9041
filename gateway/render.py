"""Renders Envoy's configuration from `envoy.base.yaml`, the descriptor set and the settings.

Routes, clusters, the transcoder's list and the token rules follow from the rpcs and their options, so that adding an
rpc needs no change here. `python -m gateway.render` rewrites the committed `envoy.yaml`, `--check` verifies that it is up to date.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from pmp.options.v1 import options_pb2
from pydantic import SecretStr

from gateway.committed import keep_fresh
from gateway.contracts import RenderError, Rpc, read_descriptors, rpcs
from gateway.patterns import Node, endpoint, fill, origin_matcher, read_base
from gateway.public import PublicFile, public_files
from gateway.rate_limits import DOMAIN, GLOBAL_LIMITS, rates
from gateway.settings import BROWSER, DASHBOARD, SIGNED, GatewaySettings
from gateway.streams import session_stream_route, stream_clusters, stream_routes
from gateway.tls import add_tls, redirected_connections, to_service
from kit.boundary.access import MAX_REQUEST_BYTES, SCOPES
from kit.settings import split_address

HERE = Path(__file__).resolve().parent
COMMITTED = HERE / "envoy.yaml"

WATCHERS = 1000
"""Connections reserved for monitoring."""
IDLE_BYTES = 16_777_216
"""Memory of a gateway without connections."""
CONNECTION_BYTES = 16_384
"""Memory of an idle HTTP/1.1 connection; with HTTP/2 it is twice as much."""

NEVER_SENT = "connect-failure,refused-stream,reset-before-request"
"""Failures before the service has seen the request: always retried."""
_PUBLIC = frozenset({options_pb2.ACCESS_TRACK, options_pb2.ACCESS_SIGNED})
"""Rpcs that the public can call: a flood of them does not affect the others."""
MAY_REPEAT = f"{NEVER_SENT},reset,unavailable"
"""Failures that are retried when the rpc is declared idempotent."""


def render(
    settings: GatewaySettings, descriptors: FileDescriptorSet, descriptors_path: str, public: Sequence[PublicFile] | None = None
) -> Node:
    """Envoy's whole configuration.

    Args:
        settings: the settings of the gateway.
        descriptors: the mesh's contracts.
        descriptors_path: path of a file with `for_envoy(descriptors)`.
        public: files that are served without a key or a token; by default `public_files()`.

    Raises:
        RenderError: the descriptor set declares something that the gateway does not support.
    """
    base = read_base()
    patterns = base["patterns"]
    methods = rpcs(descriptors)
    services = sorted({rpc.cluster for rpc in methods})
    host, port = split_address(settings.gateway_listen)
    ready = {service: {"value": 1} for service in services}
    probes = {"healthz": patterns["healthz"], "readyz": fill(patterns["readyz"], {"ready": ready})}
    clusters = [_cluster(patterns, service, settings) for service in services]
    clusters += stream_clusters(patterns, methods, settings)
    tracing = None
    if settings.otlp_endpoint:
        clusters.append(fill(patterns["called"], {"name": "collector", **endpoint(urlsplit(settings.otlp_endpoint).netloc)}))
        tracing = fill(patterns["tracing"], {"percent": 100 * settings.trace_ratio})
    limits = None
    if settings.rate_limits_address:
        clusters.append(fill(patterns["called"], {"name": GLOBAL_LIMITS, **endpoint(settings.rate_limits_address)}))
        limits = fill(patterns["global_limits"], {"domain": DOMAIN, "cluster": GLOBAL_LIMITS})
    operations = None
    if settings.metrics_port:
        clusters.append(fill(patterns["admin"], {"admin": settings.gateway_admin}))
        operations = fill(patterns["operations"], {"host": settings.metrics_host or host, "port": settings.metrics_port, **probes})
    connections = settings.gateway_max_connections * len(settings.callers_listeners) + redirected_connections(settings)
    origins = settings.origins()
    cors = fill(patterns["cors"], {"origins": list(map(origin_matcher, origins))})
    config = fill(
        base["config"],
        {
            "host": host,
            "port": port,
            "admin": settings.gateway_admin,
            "max_connections": settings.gateway_max_connections,
            "all_connections": connections + WATCHERS,
            "connections_heap": IDLE_BYTES + connections * CONNECTION_BYTES,
            "trusted_hops": settings.gateway_trusted_hops,
            "tracing": tracing,
            "operations": operations,
            **probes,
            "replies": [*patterns["overflow"], *(reply for row in base["replies"] for reply in _replies(patterns, row))],
            "credentials": _credentials(settings),
            "default_request_bytes": MAX_REQUEST_BYTES,
            "largest_request_bytes": max((rpc.max_request_bytes for rpc in methods), default=MAX_REQUEST_BYTES),
            "descriptors": descriptors_path,
            "services": sorted({rpc.service for rpc in methods}),
            "refusals": (HERE / "refusals.lua").read_text(),
            "queries": (HERE / "queries.lua").read_text(),
            "protocols": (HERE / "protocols.lua").read_text(),
            "own_origin": (HERE / "own_origin.lua").read_text(),
            "policies": _policies(methods),
            **rates(settings),
            # Of two counts, the one of all gateways is shown.
            "local_headers": "OFF" if limits else "DRAFT_VERSION_03",
            "global_limits": limits,
            "cors": cors if origins else None,
            "routes": [
                patterns["connect"],
                patterns["encoded"],
                *(_public_route(patterns["public"], each) for each in (public_files() if public is None else public)),
                patterns["sign_out"],
                *(
                    _rest_route(patterns, rpc, verb, path, DASHBOARD)
                    for rpc in methods
                    for verb, path in rpc.rest
                    if rpc.is_for_sessions(verb)
                ),
                *(session_stream_route(patterns, rpc) for rpc in methods if rpc.stream and rpc.is_for_sessions("GET")),
                patterns["session_refused"],
                *(route for rpc in methods if rpc.stream for route in stream_routes(patterns, rpc, origins)),
                *(_rest_route(patterns, rpc, verb, path, rpc.keyless_client) for rpc in methods for verb, path in rpc.rest),
                *(_rpc_route(patterns["rpc"], rpc, settings) for rpc in methods),
                patterns["unknown"],
            ],
            "clusters": clusters,
        },
    )
    add_tls(config, patterns, settings)
    return config


def _cluster(patterns: Node, service: str, settings: GatewaySettings) -> Node:
    address = settings.address(service)
    transport = to_service(patterns, settings, address, "h2")
    return fill(
        patterns["cluster"],
        {"name": service, "most_calls": settings.gateway_most_calls, "transport": transport, **endpoint(address)},
    )


def _replies(patterns: Node, row: Sequence[Any]) -> list[Node]:
    """The answers to native and REST callers for a row of the table `replies`."""
    op, status, reason, answered, code, message = row
    when = [fill(patterns["status"], {"op": op, "status": status})]
    if reason:
        when.append(fill(patterns["because"], {"expression": f"response.code_details.startsWith({json.dumps(reason)})"}))
    values = {
        "answered": None if answered == status else answered,
        "code": code,
        "message": message,
        "marks": patterns["marks"] if "json_transcode" in reason else None,
    }
    return [
        fill(patterns["grpc_reply"], {**values, "when": {"and_filter": {"filters": [*when, *patterns["native"]]}}}),
        fill(patterns["rest_reply"], {**values, "when": {"and_filter": {"filters": when}} if reason else when[0]}),
    ]


def _credentials(settings: GatewaySettings) -> list[Node]:
    owners = [(settings.site_name, settings.api_keys), (BROWSER, settings.browser_api_keys)]
    return [{"key": key.get_secret_value(), "client": client} for client, keys in owners for key in keys]


def secrets(settings: GatewaySettings) -> dict[str, str]:
    """The environment variables with Envoy's secrets: the admin interface would show those in its configuration."""
    keys = [base64.urlsafe_b64encode(secret.get_secret_value().encode()).decode().rstrip("=") for secret in settings.jwt_secrets]
    jwks = {"keys": [{"kty": "oct", "alg": "HS256", "k": key} for key in keys]}
    return {"PMP_MESH_TOKEN": settings.mesh_tokens[0], "PMP_JWKS": json.dumps(jwks)}


def _policies(methods: Sequence[Rpc]) -> Node:
    """One policy for each access: its rpcs and the scopes that may call them. A browser's key opens `track` only, a session `read` only."""
    policies: Node = {}
    for access, scopes in SCOPES.items():
        paths = [path for rpc in methods if rpc.access == access for path in rpc.paths]
        if paths:
            policies[options_pb2.Access.Name(access)] = {
                "permissions": [{"url_path": {"path": {"exact": path}}} for path in paths],
                "principals": [_principal(scope) for scope in scopes],
            }
    return policies


def _principal(scope: str) -> Node:
    if scope == SIGNED:  # without a token, so that only the client of its REST paths is known by a header
        return {"header": {"name": "x-pmp-client", "string_match": {"exact": SIGNED}}}
    has_scope = {"header": {"name": "x-pmp-scope", "string_match": {"exact": scope}}}
    kept_out = BROWSER if scope == "read" else f"{BROWSER}|{DASHBOARD}"
    is_kept_out = {"header": {"name": "x-pmp-client", "string_match": {"safe_regex": {"regex": kept_out}}}}
    return has_scope if scope == "track" else {"and_ids": {"ids": [has_scope, {"not_id": is_kept_out}]}}


def _rpc_route(pattern: Node, rpc: Rpc, settings: GatewaySettings) -> Node:
    seconds = settings.gateway_timeout_seconds
    adds = {} if rpc.streams else {"grpc-timeout": f"{seconds * 1000:.0f}m", "x-pmp-timeout": f"{seconds:g}"}
    if rpc.access == options_pb2.ACCESS_SIGNED:
        adds["x-pmp-scope"] = SIGNED
    return fill(
        pattern,
        {
            "name": rpc.path,
            "path": rpc.path,
            "cluster": rpc.cluster,
            "objective": rpc.objective,
            "priority": "DEFAULT" if rpc.access in _PUBLIC else "HIGH",
            # A stream may last; only idleness ends it.
            "timeout": "0s" if rpc.streams else f"{seconds:g}s",
            "adds": [_header(*each) for each in adds.items()] or None,
            "idle_timeout": "300s" if rpc.streams else None,
            "retry_on": MAY_REPEAT if rpc.may_repeat else NEVER_SENT,
        },
    )


def _header(key: str, value: str) -> Node:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _rest_route(patterns: Node, rpc: Rpc, verb: str, template: str, keyless: str = "") -> Node:
    """The route of a REST path: for callers with an API key, or for those of a client that has none."""
    is_session = keyless == DASHBOARD
    of_session = [*patterns["session"], patterns["own_page"]] if is_session else []
    named = [fill(patterns["named"], {"client": keyless})] if keyless else []
    return fill(
        patterns["rest"],
        {
            "name": f"{f'{DASHBOARD} ' if is_session else ''}{verb} {template}",
            "rpc": rpc.path,
            "path": _regex(template),
            "headers": [fill(patterns["method"], {"method": verb}), *of_session],
            "mutations": fill(patterns["mutations"], {"mutations": [patterns["without_grpc"], *named]}),
            "api_key": patterns["keyless"] if keyless else None,
            "max_request_bytes": rpc.max_request_bytes,
            "queries": patterns["lua"] if verb == "GET" else None,
        },
    )


def _public_route(pattern: Node, public: PublicFile) -> Node:
    return fill(pattern, {"path": public.path, "file": str(public.file), "type": public.type, "cache": public.cache})


def _regex(template: str) -> str:
    """The regular expression of a path template of google.api.http, with variables of one segment each.

    Raises:
        RenderError: a variable spans segments.
    """
    literals = re.split(r"\{\w[\w.]*\}", template)
    if any(character in literal for literal in literals for character in "{}*"):
        raise RenderError(f"{template}: only variables of one segment, as {{id}}, are supported")
    return "[^/]+".join(re.escape(literal) for literal in literals) + "/?"


def committed(descriptors: FileDescriptorSet) -> str:
    """The text of the committed `envoy.yaml`: default settings, placeholders instead of secrets."""
    # Not read from the environment, so that the result is the same everywhere.
    settings = GatewaySettings.model_construct(
        mesh_token=SecretStr("placeholder-mesh-token"),
        api_keys=[SecretStr("placeholder-api-key")],
        browser_api_keys=[SecretStr("placeholder-browser-api-key")],
        jwt_secrets=[SecretStr("placeholder-jwt-secret-that-is-no-secret")],
    )
    head = "# Rendered by `python -m gateway.render` from envoy.base.yaml and the contracts, with default settings and\n"
    head += "# placeholders for secrets. Do not edit; `python -m gateway` renders it with the real ones at each start.\n"
    public = [replace(each, file=each.file.relative_to(HERE.parent)) for each in public_files()]
    return head + as_yaml(render(settings, descriptors, "gen/mesh.binpb", public))


def as_yaml(config: Node) -> str:
    """The configuration as readable YAML."""
    return yaml.safe_dump(config, sort_keys=False, width=140)


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrites the committed `envoy.yaml`, or with `--check` verifies that it is up to date. Returns the exit status."""
    return keep_fresh("gateway.render", COMMITTED, committed(read_descriptors()), arguments)


if __name__ == "__main__":
    sys.exit(main())
