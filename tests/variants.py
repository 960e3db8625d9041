"""Variants of a test, of which `make test` runs some, and all with PMP_EVERY_VARIANT=1."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

import pytest

_Variant = TypeVar("_Variant")

long_test = pytest.mark.skipif(not os.environ.get("PMP_EVERY_VARIANT"), reason="PMP_EVERY_VARIANT=1 runs the longest tests")
"""Of tests that take more than half a minute, and go through what others test in parts."""


def some_of(variants: Sequence[_Variant], *indexes: int) -> Sequence[_Variant]:
    """The variants at these indexes, or every one."""
    return variants if os.environ.get("PMP_EVERY_VARIANT") else [variants[index] for index in indexes]
