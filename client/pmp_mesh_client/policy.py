"""Which calls are repeated, as a service config of gRPC."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

_RETRIES: Final = {
    "maxAttempts": 5,
    "initialBackoff": "0.2s",
    "maxBackoff": "5s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
}
"""Repeats of a call that is declared idempotent: the mesh is down or busy for a moment."""
_THROTTLE: Final = {"maxTokens": 20, "tokenRatio": 0.2}
"""When most calls fail, none is repeated."""


@cache
def service_config() -> str:
    """The service config of a channel to a mesh, as JSON: an rpc whose proto declares it idempotent is repeated."""
    names = [{"service": method.containing_service.full_name, "method": method.name} for method in _methods() if _may_repeat(method)]
    return json.dumps({"methodConfig": [{"name": names, "retryPolicy": _RETRIES}], "retryThrottling": _THROTTLE})


def _methods() -> Iterator[MethodDescriptor]:
    for file in _contracts():
        for service in file.services_by_name.values():
            yield from service.methods


def _contracts() -> Iterator[FileDescriptor]:
    """The contracts whose stubs are installed."""
    for package in _folders(files("pmp")):
        for version in _folders(package):
            for module in sorted(each.name for each in version.iterdir() if each.name.endswith("_pb2.py")):
                yield import_module(f"pmp.{package.name}.{version.name}.{module.removesuffix('.py')}").DESCRIPTOR


def _folders(of: Traversable) -> list[Traversable]:
    return sorted((each for each in of.iterdir() if each.is_dir() and each.name != "__pycache__"), key=lambda each: each.name)


def _may_repeat(method: MethodDescriptor) -> bool:
    return method.GetOptions().idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN
