"""Reads JSON objects into messages, by tables that are built once from the messages' descriptors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import tzinfo
from functools import partial
from typing import Any, Final, TypeAlias, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from kit.json_body import values
from kit.json_body.essential import is_essential, is_identity, rules_of
from kit.json_body.notes import Notes

_Read: TypeAlias = Callable[[Any, Any, str, Notes], None]
"""Reads a value into its field; takes the message, the value, the path before the field's name, and notes."""
_Convert: TypeAlias = Callable[[Any], Any]

_BOUNDS: Final = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_NOT_AN_OBJECT: Final = "is not an object"


class JsonReader:
    """Reads JSON objects into messages of one type.

    Args:
        descriptor: the type.
        timezone: of times without a zone.
        without: fields that JSON bodies don't have.
    """

    def __init__(self, descriptor: Descriptor, timezone: tzinfo, without: frozenset[str] = frozenset()) -> None:
        self._reads: dict[str, _Read] = {}
        self._converted: list[str] = []
        """Names of fields that are neither texts nor objects of texts, and so need conversion."""
        for each in descriptor.fields:
            if each.name not in without:
                self._reads[each.name] = self._reads[each.json_name] = _read(each, timezone)
                if not _is_text(each) and not _has_texts_alone(each):
                    self._converted += {each.name, each.json_name}

    def add(self, into: Any, value: Any, notes: Notes) -> None:
        """Reads an object into a new message of a repeated field: like `fill`, but faster for well-formed objects.

        Args:
            into: the field.
            value: as `values.parse` returns it.
            notes: collects what is remarkable.
        """
        if value.__class__ is dict:
            texts = value.copy()
            converted = [(name, texts.pop(name)) for name in self._converted if name in texts]
            try:
                message = into.add(**texts)
            except (TypeError, ValueError):
                pass  # nothing was added
            else:
                for name, given in converted:
                    if given is not None:
                        self._reads[name](message, given, "", notes)
                return
        self.fill(into.add(), value, notes)

    def fill(self, message: Any, value: Any, notes: Notes, path: str = "") -> None:
        """Reads an object into a message. An empty list counts as one, as PHP writes it, and null as a missing field.

        Args:
            message: of the reader's type; changed in place.
            value: the JSON value.
            notes: collects what is remarkable.
            path: of the object within the body; empty for the whole.
        """
        if not isinstance(value, dict):
            if value != []:
                notes.unreadable(path, _NOT_AN_OBJECT, essential=True)
            return
        before = f"{path}." if path else ""
        reads = self._reads
        for name, given in value.items():  # pyright: ignore[reportUnknownVariableType]
            read = reads.get(name)  # pyright: ignore[reportUnknownArgumentType]
            if read is None:
                notes.ignore(before, name)  # pyright: ignore[reportUnknownArgumentType]
            elif given is not None:
                read(message, given, before, notes)


def _read(of: FieldDescriptor, timezone: tzinfo) -> _Read:
    if of.is_repeated:
        return _list(of, timezone)
    return _message(of, timezone) if of.message_type is not None else _scalar(of)


def _scalar(of: FieldDescriptor) -> _Read:
    name, convert, essential = of.name, _convert(of), is_essential(of)

    def read(message: Any, value: Any, path: str, notes: Notes) -> None:
        try:
            setattr(message, name, convert(value))
        except ValueError as error:
            notes.unreadable(path + name, str(error), essential=essential)
        else:
            if value.__class__ is values.RepairedText:
                notes.note(path + name, "had characters that are none of Unicode: replaced")

    def read_text(message: Any, value: Any, path: str, notes: Notes) -> None:
        if value.__class__ is str:
            setattr(message, name, value)
        else:
            read(message, value, path, notes)

    return read_text if convert in {values.name, values.text} else read


def _is_text(of: FieldDescriptor) -> bool:
    return of.message_type is None and not of.is_repeated and _convert(of) in {values.name, values.text}


def _has_texts_alone(of: FieldDescriptor) -> bool:
    inner = of.message_type
    return inner is not None and not of.is_repeated and not inner.full_name.startswith("google.") and all(map(_is_text, inner.fields))


def _convert(of: FieldDescriptor) -> _Convert:
    kind, rules = of.cpp_type, rules_of(of)
    if kind in _BOUNDS:
        lowest, highest = _BOUNDS[kind]
        return partial(values.integer, lowest=lowest, highest=highest)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return partial(values.member, of=cast("EnumDescriptor", of.enum_type))
    if kind != FieldDescriptor.CPPTYPE_STRING:
        return values.choice if kind == FieldDescriptor.CPPTYPE_BOOL else values.number
    if rules.string.ip or rules.string.email:
        return values.network_address if rules.string.ip else values.email_address
    # A sender may write a text as a number, but never the type of a record.
    return values.text if rules.required and not is_identity(of) else values.name


def _message(of: FieldDescriptor, timezone: tzinfo) -> _Read:
    name, essential = of.name, is_essential(of)
    if _type(of).full_name == "google.protobuf.Timestamp":
        return _timestamp(of, timezone)
    fill = _fill(_type(of), timezone)

    def read(message: Any, value: Any, path: str, notes: Notes) -> None:
        if isinstance(value, dict) or value == []:
            inner = getattr(message, name)
            inner.SetInParent()
            fill(inner, value, notes, path + name)
        else:
            notes.unreadable(path + name, _NOT_AN_OBJECT, essential=essential)

    return read


def _fill(of: Descriptor, timezone: tzinfo) -> Callable[[Any, Any, Notes, str], None]:
    """Returns what reads an object into an existing message."""
    if of.full_name == "google.protobuf.Struct":
        return _fill_struct
    if of.full_name.startswith("google.protobuf."):
        message = f"the JSON form of {of.full_name} is not supported"
        raise TypeError(message)
    return JsonReader(of, timezone).fill


def _fill_struct(struct: Any, value: Mapping[str, Any], notes: Notes, path: str) -> None:
    if value and not values.put_all(struct, value):
        notes.note(path, "had numbers or characters that JSON does not have: left out or replaced")


def _timestamp(of: FieldDescriptor, timezone: tzinfo) -> _Read:
    name, essential, assumed = of.name, is_essential(of), f"has no zone: taken for local time in {timezone}"

    def read(message: Any, value: Any, path: str, notes: Notes) -> None:
        try:
            seconds, microseconds, is_local = values.moment(value, timezone)
        except ValueError as error:
            notes.unreadable(path + name, str(error), essential=essential)
            return
        into = getattr(message, name)
        into.seconds, into.nanos = seconds, 1000 * microseconds
        if is_local:
            notes.note(path + name, assumed)

    return read


def _list(of: FieldDescriptor, timezone: tzinfo) -> _Read:
    """Returns what reads a list of objects or texts. An unreadable item is left out."""
    name, essential, add = of.name, is_essential(of), _add(of, timezone)

    def read(message: Any, value: Any, path: str, notes: Notes) -> None:
        into = getattr(message, name)
        if not isinstance(value, list):
            if value != {}:
                notes.unreadable(path + name, "is not a list", essential=essential)
            return
        for number, item in enumerate(value):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            at = f"{path}{name}[{number}]"
            if wrong := add(into, item, notes, at):
                notes.unreadable(at, wrong, essential=essential)

    return read


def _add(of: FieldDescriptor, timezone: tzinfo) -> Callable[[Any, Any, Notes, str], str]:
    """Returns what adds an item to a list, and returns why it can't be read; empty if it can."""
    return _add_scalar(_convert(of)) if of.message_type is None else _add_object(_fill(_type(of), timezone))


def _add_scalar(convert: _Convert) -> Callable[[Any, Any, Notes, str], str]:
    def add(into: Any, item: Any, _notes: Notes, _at: str) -> str:
        try:
            into.append(convert(item))
        except ValueError as error:
            return str(error)
        return ""

    return add


def _add_object(fill: Callable[[Any, Any, Notes, str], None]) -> Callable[[Any, Any, Notes, str], str]:
    def add(into: Any, item: Any, notes: Notes, at: str) -> str:
        if not isinstance(item, dict):
            return _NOT_AN_OBJECT
        fill(into.add(), item, notes, at)
        return ""

    return add


def _type(of: FieldDescriptor) -> Descriptor:
    return cast("Descriptor", of.message_type)
