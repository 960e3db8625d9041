"""Where a stream is: the offsets of all partitions of the topics it consists of, and their opaque form for clients."""

from __future__ import annotations

from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from kit.errors import InvalidRequest, Violation

_VERSION: Final = 1
_SEVEN_BITS: Final = 0x7F
_MORE: Final = 0x80
_MOST_BITS: Final = 63


class Partition(NamedTuple):
    """A partition of a topic."""

    topic: str
    number: int


Positions = Mapping[Partition, int]
"""The offset of the last entry that was read of each partition; 0 before the first one."""


def cursor_of(positions: Positions) -> str:
    """Writes positions of any partitions as a text that is safe in URLs and headers."""
    numbers = (_VERSION, len(positions), *(positions[each] for each in sorted(positions)))
    return urlsafe_b64encode(bytes(_bytes(numbers))).decode().rstrip("=")


def positions_of(cursor: str, partitions: Iterable[Partition]) -> dict[Partition, int]:
    """Reads a cursor.

    Args:
        cursor: as `cursor_of` wrote it.
        partitions: those that it must be about.

    Raises:
        InvalidRequest: it is none, or is about other partitions.
    """
    expected = sorted(partitions)
    try:
        numbers = list(_numbers(b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)))
    except ValueError:
        numbers = []
    if numbers[:2] != [_VERSION, len(expected)] or len(numbers) != len(expected) + 2:
        raise InvalidRequest([Violation("since", "since is not the cursor of a response of this stream")])
    return dict(zip(expected, numbers[2:], strict=True))


def _bytes(numbers: Iterable[int]) -> Iterator[int]:
    """Each number in groups of seven bits, the lowest first; all but its last group have the highest bit set."""
    for number in numbers:
        rest = number
        while rest > _SEVEN_BITS:
            yield rest & _SEVEN_BITS | _MORE
            rest >>= 7
        yield rest


def _numbers(data: bytes) -> Iterator[int]:
    """Reverses `_bytes`.

    Raises:
        ValueError: a number is incomplete or too large.
    """
    number = bits = 0
    for byte in data:
        number |= (byte & _SEVEN_BITS) << bits
        bits += 7
        if byte & _MORE:
            continue
        if bits > _MOST_BITS:
            raise ValueError("a number is too large")
        yield number
        number = bits = 0
    if bits:
        raise ValueError("the last number is incomplete")
