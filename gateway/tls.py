"""TLS at the gateway: a second listener with the same filters, and one that redirects plain HTTP to it.

Envoy reads the certificate through its secret discovery from a file, which is the only way to have it read again when it changes:
https://www.envoyproxy.io/docs/envoy/latest/configuration/security/secret#key-rotation.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Final

from gateway.patterns import Node, fill
from gateway.settings import CERTIFICATE, PRIVATE_KEY, GatewaySettings
from kit.settings import split_address

_NAME: Final = "gateway"
_HSTS: Final = "max-age=31536000"
_REDIRECTED: Final = 1000
"""Connections that are redirected at once; each serves one request."""
_LIMIT: Final = "envoy.resource_limits.listener.{}.connection_limit"


def secret_file(settings: GatewaySettings) -> Path:
    """Path of the file that states where the certificate is; it holds no secret."""
    return Path(settings.gateway_admin).with_suffix(".certificates.json")


def certificate_source(folder: Path) -> str:
    """What that file holds: a response of the secret discovery service."""
    certificate = {
        "certificate_chain": {"filename": str(folder / CERTIFICATE)},
        "private_key": {"filename": str(folder / PRIVATE_KEY)},
        "watched_directory": {"path": str(folder)},
    }
    secret = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": _NAME,
        "tls_certificate": certificate,
    }
    return json.dumps({"resources": [secret]})


def add_tls(config: Node, patterns: Node, settings: GatewaySettings) -> None:
    """Adds the listeners for TLS and for the redirect to a rendered configuration, if the settings ask for them."""
    listeners: list[Node] = config["static_resources"]["listeners"]
    plain = listeners[0]
    bounds: Node = config["layered_runtime"]["layers"][0]["static_layer"]
    if settings.gateway_tls_listen:
        secure = deepcopy(plain)
        secure["name"] = "gateway_tls"
        secure["address"] = _address(settings.gateway_tls_listen)
        (chain,) = secure["filter_chains"]
        chain["transport_socket"] = fill(patterns["tls"], {"secret": _NAME, "path": str(secret_file(settings))})
        routes = chain["filters"][0]["typed_config"]["route_config"]
        routes["response_headers_to_add"] = [{"header": {"key": "strict-transport-security", "value": _HSTS}}]
        listeners.append(secure)
        bounds[_LIMIT.format("gateway_tls")] = settings.gateway_max_connections
    if settings.gateway_redirect_listen:
        host, port = split_address(settings.gateway_redirect_listen)
        _, target = split_address(settings.gateway_tls_listen or "")
        listeners.append(fill(patterns["redirect"], {"host": host, "port": port, "target": target}))
        bounds[_LIMIT.format("redirect")] = redirected_connections(settings)


def redirected_connections(settings: GatewaySettings) -> int:
    """Connections that the listener of the redirect accepts; 0 if there is none."""
    return min(_REDIRECTED, settings.gateway_max_connections) if settings.gateway_redirect_listen else 0


def _address(listen: str) -> Node:
    host, port = split_address(listen)
    return {"socket_address": {"address": host, "port_value": port}}
