"""The role on whose behalf the current task works: log lines, spans and metrics carry its name."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

_role: ContextVar[str] = ContextVar("role", default="")


def current_role() -> str:
    """Returns the name of the role; empty for work that belongs to none."""
    return _role.get()


def act_as(role: str) -> None:
    """Names the role for the rest of the current task, and for the tasks that it starts from now on."""
    _role.set(role)


@contextmanager
def acting_as(role: str) -> Generator[None]:
    """Names the role within the block, and for the tasks that it starts."""
    token = _role.set(role)
    try:
        yield
    finally:
        _role.reset(token)
