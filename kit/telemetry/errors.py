"""How an exception is told of: never by a text that may be personal."""

from __future__ import annotations

from kit.errors import MeshError


def describe(error: BaseException) -> str:
    """An exception in a log line: its type and number. Text only of those whose text is never personal."""
    if isinstance(error, MeshError | OSError):
        return f"{error_type(error)}: {error}"
    number = next((detail for detail in error.args[:1] if isinstance(detail, int)), getattr(error, "sqlite_errorname", ""))
    return f"{error_type(error)} {number}".rstrip()


def error_type(error: BaseException) -> str:
    """The full name of an exception's class."""
    return f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
