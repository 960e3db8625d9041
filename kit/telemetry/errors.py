"""Describes exceptions without texts that may be personal."""

from __future__ import annotations

from kit.errors import MeshError


def describe(error: BaseException) -> str:
    """Describes an exception for a log line: its type and number; its text only if that is never personal."""
    if isinstance(error, MeshError | OSError):
        return f"{error_type(error)}: {error}"
    number = next((detail for detail in error.args[:1] if isinstance(detail, int)), getattr(error, "sqlite_errorname", ""))
    return f"{error_type(error)} {number}".rstrip()


def error_type(error: BaseException) -> str:
    """Returns the full name of an exception's class."""
    return f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
