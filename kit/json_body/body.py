"""JSON bodies of requests, which the gateway forwards unchanged."""

from __future__ import annotations

from datetime import tzinfo
from typing import Any, Final, cast

from google.protobuf.descriptor import Descriptor, MethodDescriptor
from pmp.options.v1 import options_pb2

from kit.errors import Violation
from kit.json_body.notes import Notes
from kit.json_body.reader import JsonReader
from kit.json_body.values import parse

_OWN: Final = frozenset({"json_body"})


class JsonBody:
    """Reads the JSON bodies of one rpc into the field that `option (pmp.options.v1.body)` names.

    Args:
        method: the rpc.
        timezone: of times without a zone.
    """

    def __init__(self, method: MethodDescriptor, timezone: tzinfo) -> None:
        name: str = method.GetOptions().Extensions[options_pb2.body]
        self._field = "" if name == "*" else name
        self.prefix = f"{self._field}." if self._field else ""
        """Prefix of the paths of fields in the request, which paths within the body don't have."""
        of = method.input_type.fields_by_name[name].message_type if self._field else method.input_type
        self._reader = JsonReader(cast("Descriptor", of), timezone, _OWN)

    def read(self, request: Any, notes: Notes) -> None:
        """Reads the body into the request, if there is one. Fields from the URL's path take precedence.

        Raises:
            InvalidRequest: the body is not JSON.
        """
        sent: bytes = request.json_body.data
        request.ClearField("json_body")
        if not sent:
            return
        body = parse(sent)
        if self._field:
            request.ClearField(self._field)
            into = getattr(request, self._field)
            into.SetInParent()
            self._reader.fill(into, body, notes)
        else:
            read = type(request)()
            self._reader.fill(read, body, notes)
            read.MergeFrom(request)
            request.CopyFrom(read)
        violations = notes.strict() if request.strict else notes.violations
        notes.violations = [Violation(self._path(each.field), each.description) for each in violations]

    def _path(self, within: str) -> str:
        return f"{self._field}.{within}" if self._field and within else self._field or within
