"""How a command that fails says so."""

from __future__ import annotations

from typing import Any

import typer
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
            typer.secho(f"pmp: {failure}", fg=typer.colors.RED, err=True)
            raise typer.Exit(1) from failure
