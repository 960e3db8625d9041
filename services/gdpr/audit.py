"""The audit log is a hash chain: each entry's hash covers the previous one, and each receipt has the hash of the latest entry.

Neither identifies the person whose data it is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

import orjson

START: Final = "0" * 64
"""The previous hash of the first entry."""


class Link(NamedTuple):
    """An entry of the chain."""

    number: int
    entry: str
    """What was done, as JSON."""
    prev_hash: str
    hash: str


class Receipt(NamedTuple):
    """The signed receipt of a request."""

    document: str
    """JSON; `audit_head` is the hash of the entry that records its completion."""
    signature: str


def link(last: Link | None, entry: Mapping[str, Any]) -> Link:
    """Returns the entry that follows the last one."""
    number, prev_hash, text = (last.number + 1 if last else 1), (last.hash if last else START), canonical(entry)
    return Link(number, text, prev_hash, _hash(number, text, prev_hash))


def canonical(facts: Mapping[str, Any]) -> str:
    """Serialises facts as they are hashed and signed."""
    return orjson.dumps(facts, option=orjson.OPT_SORT_KEYS).decode()


def faults(
    chain: Sequence[Link], receipts: Iterable[Receipt], is_signed: Callable[[str, str], bool], requests: Iterable[str] = ()
) -> list[str]:
    """Returns the faults of a chain, its receipts and its requests; empty if there are none."""
    found: list[str] = []
    last: Link | None = None
    for each in chain:
        before = (last.number, last.hash) if last else (0, START)
        if (each.number - 1, each.prev_hash) != before:
            found.append(f"entry {each.number} does not follow entry {before[0]}")
        if each.hash != _hash(each.number, each.entry, each.prev_hash):
            found.append(f"entry {each.number} was changed")
        last = each
    known = {each.hash for each in chain}
    for receipt in receipts:
        if not is_signed(receipt.document, receipt.signature):
            found.append("a receipt is not signed by this mesh, or was changed")
        elif orjson.loads(receipt.document)["audit_head"] not in known:
            found.append(f"the entry of request {orjson.loads(receipt.document)['request']} is missing")
    # A request that is not done has no receipt yet: its own entry may be a tail that was cut off.
    entries = "\n".join(each.entry for each in chain)
    return found + [f"no entry mentions request {request}" for request in requests if f'"{request}"' not in entries]


def _hash(number: int, entry: str, prev_hash: str) -> str:
    return sha256(f"{number}\n{prev_hash}\n{entry}".encode()).hexdigest()
