"""Notes on a JSON body: what was refused, left out or ignored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pmp.options.v1.options_pb2 import Fault

from kit.errors import Violation

_MOST: Final = 20
"""The maximum number of ignored fields, and of faults, that are reported."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


@dataclass(slots=True)
class Notes:
    """Notes on a JSON body, or on one item of it."""

    violations: list[Violation] = field(default_factory=list[Violation])
    """Why it is refused."""
    faults: list[Fault] = field(default_factory=list[Fault])
    """What was left out, or read with an assumption."""
    ignored: list[str] = field(default_factory=list[str])
    """Names of unknown fields."""

    @property
    def is_remarkable(self) -> bool:
        """True if there is any note."""
        return bool(self.violations or self.faults or self.ignored)

    def ignore(self, path: str, name: str) -> None:
        """Notes an unknown field. A name that may be a value itself is not repeated."""
        if len(self.ignored) < _MOST:
            self.ignored.append(path + (name if _NAME.fullmatch(name) else "(not a name)"))

    def unreadable(self, path: str, description: str, *, essential: bool) -> None:
        """Notes a value that its field can't hold."""
        if essential:
            self.violations.append(Violation(path, description))
        else:
            self.note(path, f"{description}: left out")

    def note(self, path: str, description: str) -> None:
        """Notes a value that was left out, or read with an assumption."""
        if len(self.faults) < _MOST:
            self.faults.append(Fault(field=path, description=description))

    def broken(self, rules: Sequence[Violation]) -> Sequence[Violation]:
        """Returns why it is refused, including broken rules; of an unreadable field only that it is unreadable."""
        if not self.violations:
            return rules
        named = {violation.field for violation in self.violations}
        return [*self.violations, *(rule for rule in rules if rule.field not in named and "" not in named)]

    def strict(self) -> Sequence[Violation]:
        """Returns all notes as violations."""
        ignored = [Violation(name, "there is no such field") for name in self.ignored]
        return [*self.violations, *ignored, *(Violation(fault.field, fault.description) for fault in self.faults)]
