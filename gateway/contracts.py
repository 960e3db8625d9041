"""The contracts as the gateway needs them: the rpcs that it routes, and the descriptor set for Envoy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodDescriptorProto, MethodOptions
from google.rpc import error_details_pb2
from pmp.options.v1 import options_pb2

from gateway.settings import LINK, SIGNED
from kit.boundary.access import MAX_REQUEST_BYTES

HERE = Path(__file__).resolve().parent
_OBJECTIVES: Final = {
    options_pb2.ACCESS_TRACK: "intake",
    options_pb2.ACCESS_SITE: "intake",
    options_pb2.ACCESS_SIGNED: "intake",
    options_pb2.ACCESS_READ: "other",
}
"""What an rpc that does not only read counts towards, by its access. An operator's own calls count towards nothing."""
_HTTP: Any = annotations_pb2.http  # Its stub does not declare what it extends.


class RenderError(Exception):
    """The descriptor set declares something that the gateway does not support."""


@dataclass(frozen=True, slots=True)
class Rpc:
    """A method that the gateway routes."""

    service: str
    """Full name of its protobuf service."""
    name: str
    """Name of the method."""
    access: options_pb2.Access.ValueType
    """The smallest token scope that may call it."""
    max_request_bytes: int
    """Largest JSON body."""
    may_repeat: bool
    """Whether it is declared idempotent or without side effects."""
    streams: bool
    """Whether it answers with a stream."""
    rest: tuple[tuple[str, str], ...]
    """HTTP methods and path templates."""
    stream: str
    """Path under which it is served as a WebSocket and as server-sent events; empty for none."""

    @property
    def path(self) -> str:
        """The gRPC path."""
        return f"/{self.service}/{self.name}"

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths by which rules name it."""
        return (self.path, self.stream) if self.stream else (self.path,)

    @property
    def cluster(self) -> str:
        """Name of the service in the mesh: `ingestion` of `pmp.ingestion.v1`."""
        return self.service.split(".")[1]

    @property
    def objective(self) -> str:
        """The service level objective that its calls count towards: `intake` takes what is reported, `reads` answer; else `other`."""
        verbs = {verb for verb, _ in self.rest}
        if self.streams or not verbs or self.access not in _OBJECTIVES:
            return "other"
        return "reads" if verbs == {"GET"} else _OBJECTIVES[self.access]

    @property
    def keyless_client(self) -> str:
        """The client that calls it without an API key; empty if there is none."""
        return {options_pb2.ACCESS_LINK: LINK, options_pb2.ACCESS_SIGNED: SIGNED}.get(self.access, "")

    def is_for_sessions(self, verb: str) -> bool:
        """Whether a session of the dashboard opens it by this HTTP method: it reads reports, and nothing else."""
        return verb == "GET" and self.access == options_pb2.ACCESS_READ


def read_descriptors(path: Path | None = None) -> FileDescriptorSet:
    """Reads the mesh's descriptor set, by default from `gen/` or the installed wheel.

    Raises:
        FileNotFoundError: it does not exist.
    """
    candidates = [path] if path else [HERE.parent / "gen" / "mesh.binpb", HERE / "mesh.binpb"]
    for candidate in candidates:
        if candidate.exists():
            return FileDescriptorSet.FromString(candidate.read_bytes())
    raise FileNotFoundError(f"no descriptor set at {' or '.join(str(candidate) for candidate in candidates)}; `uv sync` makes it")


def for_envoy(descriptors: FileDescriptorSet) -> bytes:
    """The set for Envoy: with the types of error details, which no contract imports, and without comments."""
    stripped = FileDescriptorSet.FromString(descriptors.SerializeToString())
    details = stripped.file.add()
    error_details_pb2.DESCRIPTOR.CopyToProto(details)
    if any(file.name == details.name for file in descriptors.file):
        del stripped.file[-1]
    for file in stripped.file:
        file.ClearField("source_code_info")
    return stripped.SerializeToString()


def rpcs(descriptors: FileDescriptorSet) -> list[Rpc]:
    """The mesh's methods that are not INTERNAL, in the order of their paths.

    Raises:
        RenderError: a method has no access option, is INTERNAL and has a path, or has the path of a stream and another or no stream.
    """
    found = [
        rpc
        for file in descriptors.file
        if file.package.startswith("pmp.")
        for service in file.service
        for method in service.method
        if (rpc := _rpc(f"{file.package}.{service.name}", method))
    ]
    return sorted(found, key=lambda rpc: rpc.path)


def _rpc(service: str, method: MethodDescriptorProto) -> Rpc | None:
    options = method.options
    access = options.Extensions[options_pb2.access]
    rest = tuple(_bindings(options.Extensions[_HTTP])) if options.HasExtension(_HTTP) else ()
    stream = options.Extensions[options_pb2.stream]
    if access == options_pb2.ACCESS_UNSPECIFIED:
        raise RenderError(f"{service}.{method.name} has no `option (pmp.options.v1.access)`")
    if access == options_pb2.ACCESS_INTERNAL:
        if rest or stream:
            raise RenderError(f"{service}.{method.name} is INTERNAL and has a REST path")
        return None
    if stream and (rest or not method.server_streaming):
        raise RenderError(f"{service}.{method.name} has the path of a stream: it has no other path, and answers with a stream")
    return Rpc(
        service=service,
        name=method.name,
        access=access,
        max_request_bytes=options.Extensions[options_pb2.max_request_bytes] or MAX_REQUEST_BYTES,
        may_repeat=options.idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN,
        streams=method.server_streaming,
        rest=rest,
        stream=stream,
    )


def _bindings(rule: HttpRule) -> Iterator[tuple[str, str]]:
    verb = rule.WhichOneof("pattern")
    if verb == "custom":
        yield rule.custom.kind, rule.custom.path
    elif verb:
        yield verb.upper(), getattr(rule, verb)
    for further in rule.additional_bindings:
        yield from _bindings(further)
