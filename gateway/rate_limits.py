"""The limits of all gateways together: those of each gateway's own filter, as an envoyproxy/ratelimit reads them.

`python -m gateway.rate_limits FILE` writes its configuration: https://github.com/envoyproxy/ratelimit#configuration.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.patterns import Node, fill, read_base
from gateway.settings import RateLimits

DOMAIN: Final = "pmp"
"""Under which the gateways ask."""
GLOBAL_LIMITS: Final = "global-limits"
"""The cluster of who counts."""
_LOCAL: Final = "envoy.filters.http.local_ratelimit"
_UNITS: Final = {"1s": "second", "60s": "minute", "3600s": "hour"}
"""The window of each interval in which a gateway's own bucket is filled."""


def rates(limits: RateLimits) -> Mapping[str, int]:
    """The values of the placeholders that are rates in `envoy.base.yaml`."""
    return {
        "site_rate": limits.rate_site_per_second,
        "user_rate": limits.rate_user_per_hour,
        "signed_rate": limits.rate_signed_per_minute,
    }


def configuration(limits: RateLimits) -> Node:
    """The configuration of an envoyproxy/ratelimit: a tree of descriptors, with a limit at each leaf."""
    listener = read_base()["config"]["static_resources"]["listeners"][0]
    filters: list[Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    # Some are placeholders.
    local: Node = next(each["typed_config"] for each in filters if not isinstance(each, str) and each["name"] == _LOCAL)
    made: Node = {"domain": DOMAIN, "descriptors": []}
    for descriptor in fill(local["descriptors"], rates(limits)):
        node = made
        for entry in descriptor["entries"]:
            node = _child(node, entry)
        bucket = descriptor["token_bucket"]
        node["rate_limit"] = {"unit": _UNITS[bucket["fill_interval"]], "requests_per_unit": bucket["max_tokens"]}
    return made


def _child(node: Node, entry: Node) -> Node:
    children: list[Node] = node.setdefault("descriptors", [])
    for child in children:
        if all(child.get(name) == entry.get(name) for name in ("key", "value")):
            return child
    children.append(dict(entry))
    return children[-1]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(yaml.safe_dump(configuration(RateLimits()), sort_keys=False))
