"""Variants of a test, of which `make test` runs some, and all with PMP_EVERY_VARIANT=1."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeVar
from zlib import crc32

import pytest

_Variant = TypeVar("_Variant")
_DATABASES = ("mariadb", "sqlite")

EVERY_VARIANT = bool(os.environ.get("PMP_EVERY_VARIANT"))
"""Whether to run all of them, and the longest tests."""

long_test = pytest.mark.skipif(not EVERY_VARIANT, reason="PMP_EVERY_VARIANT=1 runs the longest tests")
"""Of tests that take more than half a minute, and go through what others test in parts."""


def of_other_databases(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """The tests that also run on another database, which their names choose: about half of a module's on either."""
    variants: defaultdict[str, dict[str, pytest.Item]] = defaultdict(dict)
    for item in items:
        name, bracket, variant = item.nodeid.partition("[")
        parts = variant.removesuffix("]").split("-")
        database = next((each for each in _DATABASES if each in parts), "")
        if bracket and database:
            parts.remove(database)
            variants[f"{name}[{'-'.join(parts)}"][database] = item
    both = {name: variant for name, variant in variants.items() if len(variant) == len(_DATABASES)}
    return [variant[_DATABASES[crc32(name.encode()) % 2]] for name, variant in both.items()]


def some_of(variants: Sequence[_Variant], *indexes: int) -> Sequence[_Variant]:
    """The variants at these indexes, or every one."""
    return variants if EVERY_VARIANT else [variants[index] for index in indexes]
