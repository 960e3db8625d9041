"""Which fields of protos hold texts that are scrubbed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.struct_pb2 import Struct
from pmp.options.v1 import options_pb2

from kit.json_body.essential import rules_of

# Texts with an e-mail address, to try whether a field's pattern accepts one.
_PROBES: Final = ("a@b.example", "a%40b.example", "https://a.example/?b=c")


def text_of(field: FieldDescriptor) -> int:
    """Returns the kind of text that the proto declares."""
    return field.GetOptions().Extensions[options_pb2.text]


def is_free(field: FieldDescriptor) -> bool:
    """True for a text that is scrubbed: neither personal by nature nor restricted by a rule to values without an e-mail address."""
    if text_of(field) == options_pb2.TEXT_PERSONAL:
        return False
    rules = rules_of(field).string
    if getattr(rules, "in") or rules.WhichOneof("well_known"):
        return False
    return not rules.pattern or any(re.search(rules.pattern, probe) for probe in _PROBES)


def holds_text(field: FieldDescriptor) -> bool:
    """True if a field holds texts that are scrubbed, itself or in its message."""
    message: Descriptor | None = field.message_type
    if message is None:
        return field.type == FieldDescriptor.TYPE_STRING and is_free(field)
    if text_of(field) == options_pb2.TEXT_PERSONAL:
        return False
    fields: Iterable[FieldDescriptor] = message.fields
    return message is Struct.DESCRIPTOR or any(holds_text(each) for each in fields)
