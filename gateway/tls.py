"""TLS of the gateway: a second listener with the same filters, one that redirects plain HTTP to it, and connections to services.

Envoy reads a certificate through its secret discovery from a file, which is the only way to have it read again when it changes:
https://www.envoyproxy.io/docs/envoy/latest/configuration/security/secret#key-rotation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Final

from gateway.patterns import Node, endpoint, fill
from gateway.settings import GatewaySettings
from kit.credentials.files import AUTHORITY, CERTIFICATE, PRIVATE_KEY
from kit.settings import split_address

_NAME: Final = "gateway"
_MESH: Final = "mesh"
_AUTHORITY: Final = "authority"
_HSTS: Final = "max-age=31536000"
_REDIRECTED: Final = 1000
"""Connections that are redirected at once; each serves one request."""
_LIMIT: Final = "envoy.resource_limits.listener.{}.connection_limit"


def certificate_files(settings: GatewaySettings) -> Mapping[Path, str]:
    """The files, with their contents, that say where certificates are; they hold no secret."""
    files: dict[Path, str] = {}
    if folder := settings.gateway_certificates:
        files[_file(settings, _NAME)] = _certificate(_NAME, folder.absolute())
    if folder := settings.certificates:
        files[_file(settings, _MESH)] = _certificate(_MESH, folder.absolute())
        trusted = {"trusted_ca": {"filename": str(folder.absolute() / AUTHORITY)}, "watched_directory": {"path": str(folder.absolute())}}
        files[_file(settings, _AUTHORITY)] = _secret(_AUTHORITY, validation_context=trusted)
    return files


def to_service(patterns: Node, settings: GatewaySettings, address: str, protocol: str) -> Node | None:
    """How a cluster connects to a service: with TLS, if the settings name certificates, else None.

    Args:
        patterns: those of `envoy.base.yaml`.
        settings: the settings of the gateway.
        address: of the service; its host has to be in the service's certificate.
        protocol: the name of the protocol in ALPN.
    """
    if settings.certificates is None:
        return None
    host, _ = split_address(address)
    is_name = endpoint(address)["discovery"] == "STRICT_DNS"
    files = {"certificate": str(_file(settings, _MESH)), "authority": str(_file(settings, _AUTHORITY))}
    named = {"sni": host if is_name else None, "kind": "DNS" if is_name else "IP_ADDRESS", "host": host}
    return fill(patterns["mutual_tls"], {**files, **named, "protocol": protocol})


def _file(settings: GatewaySettings, name: str) -> Path:
    return Path(settings.gateway_admin).with_suffix(f".{name}.json")


def _certificate(name: str, folder: Path) -> str:
    certificate = {
        "certificate_chain": {"filename": str(folder / CERTIFICATE)},
        "private_key": {"filename": str(folder / PRIVATE_KEY)},
        "watched_directory": {"path": str(folder)},
    }
    return _secret(name, tls_certificate=certificate)


def _secret(name: str, **content: Node) -> str:
    """A response of the secret discovery service."""
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    return json.dumps({"resources": [{"@type": kind, "name": name, **content}]})


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
        chain["transport_socket"] = fill(patterns["tls"], {"secret": _NAME, "path": str(_file(settings, _NAME))})
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
