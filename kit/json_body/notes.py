"""What is remarkable about a JSON body."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pmp.options.v1.options_pb2 import Fault

from kit.errors import Violation

_MOST: Final = 20
"""So many ignored fields, and so many faults, are named."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


@dataclass(slots=True)
class Notes:
    """What was remarkable about a JSON body, or one item of it."""

    violations: list[Violation] = field(default_factory=list[Violation])
    """Why it can't be taken."""
    faults: list[Fault] = field(default_factory=list[Fault])
    """What was left out, or read with an assumption."""
    ignored: list[str] = field(default_factory=list[str])
    """Names of fields that nobody knows."""

    @property
    def is_remarkable(self) -> bool:
        """True when there is something to say."""
        return bool(self.violations or self.faults or self.ignored)

    def ignore(self, path: str, name: str) -> None:
        """There is no such field. A name that may be a value itself is not repeated."""
        if len(self.ignored) < _MOST:
            self.ignored.append(path + (name if _NAME.fullmatch(name) else "(not a name)"))

    def unreadable(self, path: str, description: str, *, essential: bool) -> None:
        """A value is not what its field takes."""
        if essential:
            self.violations.append(Violation(path, description))
        else:
            self.note(path, f"{description}: left out")

    def note(self, path: str, description: str) -> None:
        """A value was left out, or read with an assumption."""
        if len(self.faults) < _MOST:
            self.faults.append(Fault(field=path, description=description))

    def broken(self, rules: Sequence[Violation]) -> Sequence[Violation]:
        """Why it can't be taken, with the rules that it breaks: of what could not be read, that alone."""
        if not self.violations:
            return rules
        named = {violation.field for violation in self.violations}
        return [*self.violations, *(rule for rule in rules if rule.field not in named and "" not in named)]

    def strict(self) -> Sequence[Violation]:
        """All of it as violations."""
        ignored = [Violation(name, "there is no such field") for name in self.ignored]
        return [*self.violations, *ignored, *(Violation(fault.field, fault.description) for fault in self.faults)]
