"""Ids that name nobody: what programs write where an id is missing. As a name it would make one person of all visitors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

_WORDS: Final = frozenset(
    {
        *("null", "undefined", "none", "nil", "nan", "na", "n/a", "false", "true", "unknown", "anonymous", "guest", "test"),
        *("(not set)", "(null)", "(none)", "[object object]", "object", "array", "{}", "[]"),
    }
)
_LONGEST: Final = max(map(len, _WORDS))
_ZEROS: Final = re.compile(r"[\s0._:-]*")
NOBODY: Final = "0"
"""An id that names nobody, as WordPress has it of whoever is not logged in."""
_IDS: Final = frozenset({"user_id", "session_id", "anonymous_id"})
"""What all contracts call the ids by which somebody is told of."""


def names_nobody(id_: str) -> bool:
    """True for an id that is empty, all zeros, or a word that stands for none."""
    return (len(id_) <= _LONGEST and id_.strip().casefold() in _WORDS) or _ZEROS.fullmatch(id_) is not None


def forget_nobody(request: Message, instead: str = "") -> None:
    """Empties those ids of what a request tells that name nobody; changes it in place.

    The request's own ids say whom it asks for, and stay: asked for nobody, it must not be about everybody.

    Args:
        request: as it came.
        instead: what ids become that are no ids at all, such as `[object Object]`, so that rules may still be applied.
    """
    _, messages, several = _parts(request.DESCRIPTOR)
    for name in messages:
        if request.HasField(name):
            _forget(getattr(request, name), instead)
    for name in several:
        for each in getattr(request, name):
            _forget(each, instead)


def _forget(told: Message, instead: str) -> None:
    ids, _, _ = _parts(told.DESCRIPTOR)
    for name in ids:
        if (id_ := getattr(told, name)) and names_nobody(id_):
            setattr(told, name, instead)
    forget_nobody(told, instead)


@cache
def _parts(message: Descriptor) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """Fields of a message that are ids of persons, and those that are messages, or several, which have some."""
    ids: list[str] = []
    messages: list[str] = []
    several: list[str] = []
    fields: Iterable[FieldDescriptor] = message.fields
    for field in fields:
        if field.type == FieldDescriptor.TYPE_STRING and field.name in _IDS:
            ids.append(field.name)
        elif field.message_type is not None and field.message_type.file.package.startswith("pmp.") and any(_parts(field.message_type)):
            (several if field.is_repeated else messages).append(field.name)
    return ids, messages, several
