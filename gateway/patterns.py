"""`envoy.base.yaml`, its patterns, and what fills their placeholders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import yaml

from kit.settings import split_address

Node = dict[str, Any]


def read_base() -> Node:
    """What is written in `envoy.base.yaml`: `config`, `patterns` and `replies`."""
    return yaml.safe_load(Path(__file__).with_name("envoy.base.yaml").read_text())


def fill(node: Any, values: Mapping[str, Any]) -> Any:
    """A copy of the tree with each `$name` replaced by its value; entries that are None are left out."""
    if isinstance(node, dict):
        filled = {key: fill(child, values) for key, child in cast("Node", node).items()}
        return {key: child for key, child in filled.items() if child is not None}
    if isinstance(node, list):
        return [child for entry in cast("list[Any]", node) if (child := fill(entry, values)) is not None]
    return deepcopy(values[node[1:]]) if isinstance(node, str) and node.startswith("$") else node


def endpoint(address: str) -> Node:
    """Host and port of an address, and how Envoy finds them."""
    host, port = split_address(address)
    try:
        ip_address(host)
    except ValueError:
        return {"host": host, "port": port, "discovery": "STRICT_DNS"}
    return {"host": host, "port": port, "discovery": "STATIC"}


def origin_matcher(origin: str) -> Node:
    """Matcher of an origin; `https://*.shop.example` matches every host of the domain."""
    scheme, star, domain = origin.partition("://*.")
    return {"safe_regex": {"regex": rf"{scheme}://([a-z0-9-]+\.)+{re.escape(domain)}"}} if star else {"exact": origin}
