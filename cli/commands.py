"""Error handling of all commands."""

from __future__ import annotations

import os
from typing import Any

import typer
from typer.core import TyperGroup
from typing_extensions import override

from cli.errors import CommandFailed


class Commands(TyperGroup):
    """Commands that create private files only, as do the processes they start.

    An expected failure is printed as one message, with exit status 1 and without a traceback.
    """

    @override
    def invoke(self, ctx: Any) -> Any:
        # Otherwise gRPC prints a line whenever a service closes its connection.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        before = os.umask(0o077)
        try:
            _take_secrets()
            return super().invoke(ctx)
        except CommandFailed as failure:
            typer.secho(f"pmp: {failure}", fg=typer.colors.RED, err=True)
            raise typer.Exit(1) from failure
        finally:
            os.umask(before)


def _take_secrets() -> None:
    """Puts the secrets of PMP_SECRETS_DIR, which a pod has, into the environment.

    Raises:
        CommandFailed: they can't be read.
    """
    if not os.environ.get("PMP_SECRETS_DIR"):
        return
    from kit.credentials.files import into_environment  # noqa: PLC0415  (most commands need no secrets)

    try:
        into_environment()
    except OSError as error:
        raise CommandFailed(f"PMP_SECRETS_DIR: {error.filename}: {error.strerror}") from None
