"""Options that are URLs and may contain a password."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import typer

from cli.errors import CommandFailed


def private_url(context: typer.Context, parameter: typer.CallbackParam, value: str | None) -> str | None:
    """The value of a URL option, or the contents of `@FILE`. Warns of a password that other users can read.

    Raises:
        CommandFailed: the file can't be read, or is empty.
    """
    if value is None:
        return None
    option = parameter.opts[0]
    if value.startswith("@"):
        return _of_file(Path(value[1:]), option)
    source = context.get_parameter_source(parameter.name or "")
    if source is not None and source.name == "COMMANDLINE" and _has_password(value):
        warning = f"every user of this machine can read the password in {option} (`ps`): use {parameter.envvar}, or {option} @FILE"
        typer.secho(f"pmp: {warning}", fg=typer.colors.YELLOW, err=True)
    return value


def _of_file(path: Path, option: str) -> str:
    try:
        url = path.expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"the file {path} of {option} can't be read: {error}") from error
    if not url:
        raise CommandFailed(f"the file {path} of {option} is empty")
    return url


def _has_password(url: str) -> bool:
    try:
        return urlsplit(url).password is not None
    except ValueError:  # not a URL, which is reported later
        return False
