"""The API key and the token with which a client calls a mesh."""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import jwt
from pmp_mesh_client.tokens import Scope, mint
from pydantic import TypeAdapter, ValidationError

from cli.errors import CommandFailed
from cli.folder import DataFolder
from cli.local_secrets import Secrets
from cli.state import running_mesh

_USER = re.compile(r"[A-Za-z0-9._:-]{1,255}")


class Format(StrEnum):
    """How credentials are printed."""

    ENV = "env"
    HEADERS = "headers"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client sends with each call."""

    url: str
    """Address of the gateway."""
    api_key: str
    """Identifies the calling system."""
    token: str
    """Authorises it for an hour."""

    def headers(self) -> dict[str, str]:
        """The request headers of a call."""
        return {"x-api-key": self.api_key, "authorization": f"Bearer {self.token}"}

    def render(self, form: Format) -> str:
        """Shell exports for `eval`, header lines for `curl -H @file`, or JSON."""
        return _RENDERERS[form](self)


def checked_user(user: str | None) -> str | None:
    """Returns the user id if it is valid.

    Raises:
        CommandFailed: it is not a valid id.
    """
    if user is not None and not _USER.fullmatch(user):
        message = "a user is 1 to 255 letters, digits or any of . _ : -"
        raise CommandFailed(message)
    return user


def credentials(folder: DataFolder, scope: Scope, user: str | None = None, environ: Mapping[str, str] = os.environ) -> Credentials:
    """Credentials for the mesh that `PMP_API_KEYS` and `PMP_JWT_SECRETS` name, else for the one that runs on the data folder.

    Raises:
        CommandFailed: there is no mesh, or it has no key for the scope.
    """
    if "PMP_JWT_SECRETS" in environ:
        url = environ.get("PMP_URL", "")
        if not url:
            message = "PMP_JWT_SECRETS is set but PMP_URL is not: it is the gateway's address, such as https://mesh.example"
            raise CommandFailed(message)
        variable = "PMP_BROWSER_API_KEYS" if scope is Scope.TRACK else "PMP_API_KEYS"
        keys, signing = _json_list(environ, variable), _json_list(environ, "PMP_JWT_SECRETS")
    else:
        own = Secrets.load(folder)
        url = running_mesh(folder).url
        keys, signing = own.browser_api_keys if scope is Scope.TRACK else own.api_keys, own.jwt_secrets
    return Credentials(url.rstrip("/"), keys[0], mint(signing[0], scope, user, int(time.time())))


def signing_secret(folder: DataFolder, environ: Mapping[str, str] = os.environ) -> str:
    """The secret that signs tokens of the mesh that `credentials` names.

    Raises:
        CommandFailed: there is none.
    """
    return _json_list(environ, "PMP_JWT_SECRETS")[0] if "PMP_JWT_SECRETS" in environ else Secrets.load(folder).jwt_secrets[0]


def signed(secret: str, issuer: str, scope: str, now: int, seconds: int, **claims: str) -> str:
    """A signed token for what `mint` makes none: sessions of the dashboard, and links and codes that are valid once.

    Args:
        secret: as `signing_secret` returns it.
        issuer: the claim `iss`.
        scope: what it allows.
        now: when it is issued, in seconds since 1970.
        seconds: how long it is valid.
        claims: further claims.
    """
    return jwt.encode({"iss": issuer, "scope": scope, "iat": now, "exp": now + seconds, **claims}, secret, algorithm="HS256")


def _json_list(environ: Mapping[str, str], variable: str) -> tuple[str, ...]:
    try:
        values = TypeAdapter(tuple[str, ...]).validate_json(environ.get(variable, ""))
    except ValidationError:
        values = ()
    if not values:
        message = f'{variable} must be a JSON list of strings, such as ["..."]'
        # The cause would show the value.
        raise CommandFailed(message) from None
    return values


def _exports(of: Credentials) -> str:
    values = {"PMP_URL": of.url, "PMP_API_KEY": of.api_key, "PMP_TOKEN": of.token}
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items())


def _header_lines(of: Credentials) -> str:
    return "\n".join(f"{name}: {value}" for name, value in of.headers().items())


def _json(of: Credentials) -> str:
    return json.dumps({"url": of.url, "api_key": of.api_key, "token": of.token}, indent=2)


_RENDERERS: dict[Format, Callable[[Credentials], str]] = {Format.ENV: _exports, Format.HEADERS: _header_lines, Format.JSON: _json}
