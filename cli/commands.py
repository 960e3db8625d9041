"""How a command that fails says so."""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup
from typing_extensions import override

from cli.errors import CommandFailed


class Commands(TyperGroup):
    """Commands that tell an expected failure in words, with exit status 1 and without a traceback."""

    @override
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CommandFailed as failure:
            Console(stderr=True).print(f"pmp: {failure}", style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(1) from failure
