"""The rules of protos."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import Message
from protovalidate import Validator

from kit.errors import Violation
from kit.json_body.leaving_out import leave_out
from kit.json_body.notes import Notes

if TYPE_CHECKING:
    from protovalidate import Violation as BrokenRule

_validator = Validator()


def validate(message: Message) -> list[Violation]:
    """The rules of its proto that a message breaks, with paths such as `utm_parameters.source` and `events[3].id`."""
    return [_violation(broken) for broken in _validator.collect_violations(message)]


def broken_still(message: Message, broken: list[Violation], notes: Notes, prefix: str = "") -> list[Violation]:
    """The rules that a message breaks once what may be left out of it is left out (`leave_out`).

    Args:
        message: as it came; changed in place.
        broken: the rules that it breaks.
        notes: takes what was left out.
        prefix: begins all paths, and is no part of those in a body.
    """
    return validate(message) if leave_out(message, broken, notes, prefix) else broken


def _violation(broken: BrokenRule) -> Violation:
    proto = broken.proto
    path = ""
    for element in proto.field.elements if proto.field else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            path += f"[{element.subscript.value}]"
    return Violation(path, proto.message or proto.rule_id)
