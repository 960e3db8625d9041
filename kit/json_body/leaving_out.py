"""What is left out of a record that came as JSON, so that the rest of it is kept."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from pmp.options.v1 import options_pb2

from kit.errors import Violation
from kit.json_body.notes import Notes

_STEP: Final = re.compile(r"(?P<name>\w+)(?:\[(?P<number>\d+)\])?\.?")


def leave_out(message: Message, broken: Iterable[Violation], notes: Notes, prefix: str = "") -> bool:
    """Empties those fields that break a rule and without which a record says the same, such as an address that is none.

    Args:
        message: what breaks the rules; changed in place.
        broken: which.
        notes: takes what was left out.
        prefix: begins all paths, and is no part of those in a body.

    Returns:
        True when there were some. What is left may break rules that it did not break before.
    """
    emptied: set[str] = set()
    for violation in broken:
        path = violation.field
        found = _found(message, path)
        if found is None or path in emptied:
            continue
        holder, field = found
        if not is_essential(field):
            emptied.add(path)
            holder.ClearField(field.name)
            notes.note(path.removeprefix(prefix), f"{violation.description}: left out")
    return bool(emptied)


def is_essential(field: FieldDescriptor) -> bool:
    """True where a record without the field would say something else.

    It is required, an id, a number, a choice, bound to a pattern, or its proto says so.
    """
    rules = rules_of(field)
    if field.cpp_type != FieldDescriptor.CPPTYPE_STRING or field.is_repeated:
        return True
    has_form = rules.string.HasField("pattern") or getattr(rules.string, "in")
    return bool(rules.required or has_form or is_identity(field) or field.GetOptions().Extensions[options_pb2.essential])


def rules_of(field: FieldDescriptor) -> validate_pb2.FieldRules:
    """What its proto asks of a field."""
    return field.GetOptions().Extensions[validate_pb2.field]


def is_identity(field: FieldDescriptor) -> bool:
    """True for what tells one record, person or product from another."""
    return field.name in {"id", "reference"} or field.name.endswith("_id")


def _found(message: Any, path: str) -> tuple[Message, FieldDescriptor] | None:
    """The field at a path, and the message that has it; None for a message as a whole, or an item of a list."""
    steps = [*_STEP.finditer(path)]
    if not steps or steps[-1]["number"] is not None:
        return None
    for step in steps[:-1]:
        message = getattr(message, step["name"])
        if step["number"] is not None:
            message = message[int(step["number"])]
    return message, message.DESCRIPTOR.fields_by_name[steps[-1]["name"]]
