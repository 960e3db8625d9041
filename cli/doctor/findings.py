"""What a check reports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict

from cli.doctor.subject import Subject


class Finding(BaseModel):
    """Something that is not well."""

    model_config = ConfigDict(frozen=True)

    what: str
    """What it is, in one sentence; holds no secret and nothing personal."""
    action: str
    """What to do, in one sentence, with the command if there is one."""


class Checked(BaseModel):
    """The result of one check."""

    model_config = ConfigDict(frozen=True)

    check: str
    """Its name."""
    findings: list[Finding] = []
    """Empty if all is well, or if nothing could be examined."""
    left_out: str = ""
    """Why nothing, or not all, was examined; empty if everything was."""


class Report(BaseModel):
    """The results of all checks."""

    model_config = ConfigDict(frozen=True)

    is_well: bool
    """Whether no check has a finding."""
    checks: list[Checked]
    """In a fixed order."""


Check: TypeAlias = Callable[[Subject], AsyncIterator[Finding]]
"""Yields what it finds.

Raises:
    NotExamined: it can't be made here.
"""
