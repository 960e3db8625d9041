"""Packs: an entry of the log holds several messages, serialised together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pmp.log.v1 import log_pb2 as pb

PACK_BYTES: Final = 524_288
"""Largest pack; one entry of the log."""
# Tag and length of a record inside of its pack, at most.
_RECORD_FRAME: Final = 6


def packs(records: Sequence[bytes], most: int | None = None) -> list[tuple[bytes, int]]:
    """Serialised `pmp.log.v1.Record`s as packs of at most 512 KiB and so many messages, with the number of messages in each."""
    result: list[tuple[bytes, int]] = []
    pack: list[bytes] = []
    size = 0
    for record in records:
        length = len(record) + _RECORD_FRAME
        if pack and (size + length > PACK_BYTES or len(pack) == most):
            result.append((pb.PackBytes(records=pack).SerializeToString(), len(pack)))
            pack, size = [], 0
        pack.append(record)
        size += length
    if pack:
        result.append((pb.PackBytes(records=pack).SerializeToString(), len(pack)))
    return result
