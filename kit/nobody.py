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
_IDS: Final = frozenset({"user_id", "session_id", "anonymous_id"})
"""What all contracts call the ids by which somebody is told of."""


def names_nobody(id_: str) -> bool:
    """True for an id that is empty, all zeros, or a word that stands for none."""
    return (len(id_) <= _LONGEST and id_.strip().casefold() in _WORDS) or _ZEROS.fullmatch(id_) is not None


def forget_nobody(request: Message) -> None:
    """Empties those ids of a request that name nobody; changes it in place."""
    ids, messages, several = _parts(request.DESCRIPTOR)
    for name in ids:
        if (id_ := getattr(request, name)) and names_nobody(id_):
            request.ClearField(name)
    for name in messages:
        if request.HasField(name):
            forget_nobody(getattr(request, name))
    for name in several:
        for each in getattr(request, name):
            forget_nobody(each)


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
