"""Validates messages by the rules of their protos."""

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
    """Returns the rules of its proto that a message breaks, with paths such as `utm_parameters.source` and `events[3].id`."""
    return [_violation(broken) for broken in _validator.collect_violations(message)]


def broken_still(message: Message, broken: list[Violation], notes: Notes, prefix: str = "") -> list[Violation]:
    """Leaves out of a message what may be left out (`leave_out`); returns the rules that it still breaks.

    Args:
        message: as received; changed in place.
        broken: the rules that it breaks.
        notes: records what was left out.
        prefix: the prefix of all paths that paths within the body don't have.
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
