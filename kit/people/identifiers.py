"""Identifiers: values with their kind by which a person is recognised, such as `wordpress:42` or `session:abc`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from pmp.options.v1 import options_pb2

from kit.boundary.nobody import names_nobody


def identifier_of(*, user_id: str = "", email_hash: bytes = b"", session_id: str = "", anonymous_id: str = "", visitor: str = "") -> str:
    """Returns the strongest identifier among these values; empty if none of them identifies anybody."""
    if user_id and not names_nobody(user_id):
        return f"wordpress:{int(user_id)}" if user_id.isdecimal() and user_id.isascii() else f"user:{user_id}"
    if email_hash:
        return f"email:{email_hash.hex()}"
    if session_id and not names_nobody(session_id):
        return f"session:{session_id}"
    if anonymous_id and not names_nobody(anonymous_id):
        return f"anonymous:{anonymous_id}"
    return f"visitor:{visitor}" if visitor else ""


_Read: TypeAlias = Callable[[Any], Iterable[str]]
"""Returns the identifiers that a value of a field stands for."""

_READERS: Final[Mapping[int, _Read]] = {
    # Digits are the id of a WordPress user as a rule, but nothing keeps the mesh from making such an id.
    options_pb2.IDENTIFIER_USER_ID: lambda value: (identifier_of(user_id=value), f"user:{value}"),
    options_pb2.IDENTIFIER_WORDPRESS_ID: lambda value: (f"wordpress:{value}",),
    options_pb2.IDENTIFIER_SESSION_ID: lambda value: (identifier_of(session_id=value),),
    options_pb2.IDENTIFIER_ANONYMOUS_ID: lambda value: (identifier_of(anonymous_id=value),),
    options_pb2.IDENTIFIER_EMAIL_HASH: lambda value: (identifier_of(email_hash=value),),
    options_pb2.IDENTIFIER_SUBJECT: lambda value: (value if ":" in value else identifier_of(user_id=value),),
}


class _Fields(NamedTuple):
    """The fields of a message type that identify persons, and those that hold messages with such fields."""

    identifiers: Sequence[tuple[str, _Read, bool]]
    """Names of fields, how they are read, and whether they are repeated."""
    messages: Sequence[tuple[str, bool]]


def identifiers_in(message: Message) -> set[str]:
    """Returns the identifiers of persons in a message, wherever its fields declare one by `(pmp.options.v1.identifier)`."""
    return {identifier for identifier in _identifiers_in(message) if identifier}


def identifiers_in_payload(message_type: str, payload: bytes) -> set[str]:
    """Returns the identifiers of persons in a serialised message; none if its type is unknown or it can't be parsed."""
    try:
        message = GetMessageClass(Default().FindMessageTypeByName(message_type)).FromString(payload)
    except (KeyError, DecodeError):
        return set()
    return identifiers_in(message)


def _identifiers_in(message: Message) -> Iterator[str]:
    fields = _fields(message.DESCRIPTOR)
    for name, read, is_repeated in fields.identifiers:
        value = getattr(message, name)
        for each in value if is_repeated else [value]:
            if each:
                yield from read(each)
    for name, is_repeated in fields.messages:
        if is_repeated:
            for each in getattr(message, name):
                yield from _identifiers_in(each)
        elif message.HasField(name):
            yield from _identifiers_in(getattr(message, name))


@cache
def _fields(message: Descriptor) -> _Fields:
    identifiers: list[tuple[str, _Read, bool]] = []
    messages: list[tuple[str, bool]] = []
    fields: Iterable[FieldDescriptor] = message.fields
    for field in fields:
        if reader := _READERS.get(field.GetOptions().Extensions[options_pb2.identifier]):
            identifiers.append((field.name, reader, field.is_repeated))
        elif field.message_type is not None and field.message_type.file.package.startswith("pmp.") and any(_fields(field.message_type)):
            messages.append((field.name, field.is_repeated))
    return _Fields(identifiers, messages)
