"""How a command that fails says so."""

from __future__ import annotations

import os
from typing import Any

import typer
from typer.core import TyperGroup
from typing_extensions import override

from cli.errors import CommandFailed


class Commands(TyperGroup):
    """Commands whose files, and those of the processes they start, are for their user only.

    An expected failure is told in words, with exit status 1 and without a traceback.
    """

    @override
    def invoke(self, ctx: Any) -> Any:
        # Else gRPC tells the terminal each time that a service says goodbye.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        before = os.umask(0o077)
        try:
            return super().invoke(ctx)
        except CommandFailed as failure:
            typer.secho(f"pmp: {failure}", fg=typer.colors.RED, err=True)
            raise typer.Exit(1) from failure
        finally:
            os.umask(before)
