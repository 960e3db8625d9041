"""Ids of nobody: what programs send where an id is missing. Taken for ids, they would merge all visitors into one person."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from string import ascii_letters, digits
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from pmp.options.v1 import options_pb2

_WORDS: Final = frozenset(
    {
        *("null", "undefined", "none", "nil", "nan", "na", "n/a", "false", "true", "unknown", "anonymous", "guest", "test"),
        *("(not set)", "(null)", "(none)", "[object object]", "object", "array", "{}", "[]"),
    }
)
_LONGEST: Final = max(map(len, _WORDS))
_ZEROS: Final = re.compile(r"[\s0._:-]*")
_FIRST_OF_SOMEBODY: Final = frozenset(ascii_letters + digits) - {"0", *(first for word in _WORDS for first in (word[0], word[0].upper()))}
"""No id of nobody begins with one of these, so that most ids need no further check."""
NOBODY: Final = "0"
"""An id of nobody, as WordPress has it for visitors who are not logged in."""
_IDS: Final = frozenset({options_pb2.IDENTIFIER_USER_ID, options_pb2.IDENTIFIER_SESSION_ID, options_pb2.IDENTIFIER_ANONYMOUS_ID})
"""The identifiers that clients choose themselves, so that they may be no ids at all."""


def names_nobody(id_: str) -> bool:
    """True for an id that is empty, all zeros, or a placeholder."""
    if id_[:1] in _FIRST_OF_SOMEBODY:
        return False
    return (len(id_) <= _LONGEST and id_.strip().casefold() in _WORDS) or _ZEROS.fullmatch(id_) is not None


def forget_nobody(request: Message, instead: str = "") -> None:
    """Clears the ids of nobody in the records of a request; changes it in place.

    The request's own ids stay, since they select a person: a request for nobody must not become one for everybody.

    Args:
        request: as received.
        instead: replaces ids that are not even valid, such as `[object Object]`, so that rules can still be applied.
    """
    _, messages, several = _parts(request.DESCRIPTOR)
    for name in messages:
        if request.HasField(name):
            _forget([getattr(request, name)], instead)
    for name in several:
        _forget(getattr(request, name), instead)


def _forget(records: Iterable[Message], instead: str) -> None:
    """Clears the ids of nobody in messages of one type."""
    ids: Sequence[str] = ()
    is_nested = True
    for number, each in enumerate(records):
        if not number:
            ids, *nested = _parts(each.DESCRIPTOR)
            is_nested = any(nested)
        for name in ids:
            if (id_ := getattr(each, name)) and names_nobody(id_):
                setattr(each, name, instead)
        if is_nested:
            forget_nobody(each, instead)


@cache
def _parts(message: Descriptor) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """Returns the fields of a message that are ids of persons, and those that are messages, or lists of messages, with any."""
    ids: list[str] = []
    messages: list[str] = []
    several: list[str] = []
    fields: Iterable[FieldDescriptor] = message.fields
    for field in fields:
        if field.GetOptions().Extensions[options_pb2.identifier] in _IDS:
            ids.append(field.name)
        elif field.message_type is not None and field.message_type.file.package.startswith("pmp.") and any(_parts(field.message_type)):
            (several if field.is_repeated else messages).append(field.name)
    return ids, messages, several
