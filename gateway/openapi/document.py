"""The OpenAPI document of the whole mesh."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import yaml
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from gateway.contracts import HERE, rpcs
from gateway.openapi.comments import comments
from gateway.openapi.operations import API_KEY, BEARER, SESSION, Operations
from gateway.openapi.rules import Schema
from gateway.openapi.schemas import Schemas
from gateway.openapi.statuses import ERROR, failures

ROOT: Final = HERE.parent
COMMITTED: Final = ROOT / "docs" / "openapi.json"
_INFO: Final[Schema] = {
    "title": "pmp-mesh",
    "version": "v1",
    "summary": "Analytics and automation backend of a WordPress + WooCommerce course shop",
    "description": (
        "Every call has an API key and a token. Names are in snake_case; requests may have them in camelCase. A body is read "
        "tolerantly: a field that is null counts as missing; what can't be read as written is left out and listed in `faults`, an "
        "unknown field in `ignored_fields`; with `?strict=true` both are an error. The same contracts and rules hold for gRPC on the "
        "same port."
    ),
}
_SECURITY: Final[Schema] = {
    API_KEY: {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "Names the calling system."},
    BEARER: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": (
            "HS256, issuer `pmp-wordpress-integration`, valid for an hour at most. The claim `scope` is `track`, `site`, `read` or "
            "`admin`; `id` is the user for whom the token was issued. A sign-in link and a connection code have the scope `link` and "
            "their own `id`."
        ),
    },
    SESSION: {"type": "apiKey", "in": "cookie", "name": "pmp_dashboard", "description": "A session of the dashboard, for its own page."},
}


def document(descriptors: FileDescriptorSet, examples: Mapping[str, Any]) -> Schema:
    """The OpenAPI document of the rpcs that the gateway routes.

    Args:
        descriptors: the mesh's contracts.
        examples: request bodies by service and rpc, such as `ingestion.TrackEvent`.

    Raises:
        RenderError: the descriptor set declares something that the gateway does not support.
    """
    pool = DescriptorPool()
    for file in descriptors.file:
        pool.Add(file)  # pyright: ignore[reportUnknownMemberType]
    schemas = Schemas(comments(descriptors))
    failed = failures(yaml.safe_load((HERE / "envoy.base.yaml").read_text())["replies"])
    operations = Operations(schemas, examples, [int(name.rpartition("_")[2]) for name in failed])
    paths: dict[str, Schema] = {}
    tags: dict[str, str] = {}
    for rpc in rpcs(descriptors):
        service = pool.FindServiceByName(rpc.service)
        tags[rpc.cluster] = schemas.described(rpc.service)
        for path, verb, operation in operations.of(rpc, service.methods_by_name[rpc.name]):
            paths.setdefault(path, {})[verb] = operation
    return {
        "openapi": "3.1.0",
        "info": _INFO,
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in sorted(tags.items())],
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": {"Error": ERROR, **schemas.components}, "responses": failed, "securitySchemes": _SECURITY},
    }


def committed(descriptors: FileDescriptorSet) -> str:
    """The text of the committed document, with the golden payloads as examples."""
    payloads = sorted((ROOT / "tests" / "payloads").glob("*.json"))
    examples = {path.stem: json.loads(path.read_text(), object_hook=_set_fields) for path in payloads}
    return json.dumps(document(descriptors, examples), indent=1, ensure_ascii=False) + "\n"


def _set_fields(given: dict[str, Any]) -> dict[str, Any]:
    """An object without its null fields: services read them as missing."""
    return {name: value for name, value in given.items() if value is not None}
