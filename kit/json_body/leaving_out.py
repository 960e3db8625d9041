"""Leaves invalid texts and amounts out of a record that came as JSON, so that the rest of it is kept."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from kit.errors import Violation
from kit.json_body.essential import is_essential
from kit.json_body.notes import Notes

_CLEARED: Final = {FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_DOUBLE}
_STEP: Final = re.compile(r"(?P<name>\w+)(?:\[(?P<number>\d+)\])?\.?")


def leave_out(message: Message, broken: Iterable[Violation], notes: Notes, prefix: str = "") -> bool:
    """Clears the texts and amounts that break a rule and are not essential, such as an invalid e-mail address.

    Whole numbers, objects and lists that break a rule are never cleared: they refuse their record.

    Args:
        message: the message that breaks the rules; changed in place.
        broken: the rules it breaks.
        notes: records what was left out.
        prefix: the prefix of all paths that paths within the body don't have.

    Returns:
        True if any field was cleared. The remaining message may break rules that it did not break before.
    """
    emptied: set[str] = set()
    for violation in broken:
        path = violation.field
        found = _found(message, path)
        if found is None or path in emptied:
            continue
        holder, field = found
        if field.cpp_type in _CLEARED and not field.is_repeated and not is_essential(field):
            emptied.add(path)
            holder.ClearField(field.name)
            notes.note(path.removeprefix(prefix), f"{violation.description}: left out")
    return bool(emptied)


def _found(message: Any, path: str) -> tuple[Message, FieldDescriptor] | None:
    """Returns the field at a path and the message that holds it; None for a message as a whole or an item of a list."""
    steps = [*_STEP.finditer(path)]
    if not steps or steps[-1]["number"] is not None:
        return None
    for step in steps[:-1]:
        message = getattr(message, step["name"])
        if step["number"] is not None:
            message = message[int(step["number"])]
    return message, message.DESCRIPTOR.fields_by_name[steps[-1]["name"]]
