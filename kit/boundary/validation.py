"""The rules of protos."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import Message
from protovalidate import Validator

from kit.errors import Violation

if TYPE_CHECKING:
    from protovalidate import Violation as BrokenRule

_validator = Validator()


def validate(message: Message) -> list[Violation]:
    """The rules of its proto that a message breaks, with paths such as `utm_parameters.source` and `events[3].id`."""
    return [_violation(broken) for broken in _validator.collect_violations(message)]


def _violation(broken: BrokenRule) -> Violation:
    proto = broken.proto
    path = ""
    for element in proto.field.elements if proto.field else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            path += f"[{element.subscript.value}]"
    return Violation(path, proto.message or proto.rule_id)
