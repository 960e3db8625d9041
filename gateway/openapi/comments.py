"""The comments of the protos, which become the descriptions of the document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet

_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
"""Numbers of the fields of FileDescriptorProto, of which paths in the source information consist."""
_FIELDS, _NESTED, _NESTED_ENUMS, _MEMBERS = 2, 3, 4, 2
"""Numbers of the fields of DescriptorProto, and of those of EnumDescriptorProto and ServiceDescriptorProto with members."""
_DIRECTIVE = "buf:lint:"
"""Begins a line that is addressed to buf."""


def comments(descriptors: FileDescriptorSet) -> dict[str, str]:
    """Comments that stand before a declaration, by its full name: paragraphs separated by an empty line."""
    return {name: text for file in descriptors.file for name, text in _of_file(file)}


def _of_file(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    names = dict(_names(file))
    for location in file.source_code_info.location:
        name = names.get(tuple(location.path))
        if name and location.leading_comments:
            yield name, _paragraphs(location.leading_comments)


def _names(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """Paths of declarations with their full names."""
    for index, message in enumerate(file.message_type):
        yield from _of_message(message, (_MESSAGES, index), file.package)
    for index, enum in enumerate(file.enum_type):
        yield from _of_members(enum, enum.value, (_ENUMS, index), file.package)
    for index, service in enumerate(file.service):
        yield from _of_members(service, service.method, (_SERVICES, index), file.package)


def _of_message(message: DescriptorProto, path: tuple[int, ...], scope: str) -> Iterator[tuple[tuple[int, ...], str]]:
    name = f"{scope}.{message.name}"
    yield path, name
    for index, field in enumerate(message.field):
        yield (*path, _FIELDS, index), f"{name}.{field.name}"
    for index, nested in enumerate(message.nested_type):
        yield from _of_message(nested, (*path, _NESTED, index), name)
    for index, enum in enumerate(message.enum_type):
        yield from _of_members(enum, enum.value, (*path, _NESTED_ENUMS, index), name)


def _of_members(
    declared: EnumDescriptorProto | Any, members: Any, path: tuple[int, ...], scope: str
) -> Iterator[tuple[tuple[int, ...], str]]:
    name = f"{scope}.{declared.name}"
    yield path, name
    for index, member in enumerate(members):
        yield (*path, _MEMBERS, index), f"{name}.{member.name}"


def _paragraphs(comment: str) -> str:
    lines = [line.strip() for line in comment.strip().splitlines()]
    kept = "\n".join(line for line in lines if not line.startswith(_DIRECTIVE))
    return "\n\n".join(" ".join(paragraph.split("\n")) for paragraph in kept.strip().split("\n\n"))
