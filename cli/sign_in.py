"""`pmp open`: a one-time link that signs a browser in to the dashboard."""

from __future__ import annotations

import secrets
import time
from typing import Final

from pmp_mesh_client.tokens import ISSUER, Scope

from cli.calls import call, connect
from cli.credentials import credentials, signed, signing_secret
from cli.errors import CommandFailed
from cli.folder import DataFolder

SESSION_ISSUER: Final = "pmp-dashboard"
"""The issuer that the gateway requires of a session, and accepts in no token."""
SESSION_SECONDS: Final = 86_400
"""Lifetime of a session."""
LINK_SECONDS: Final = 300
"""How long the link can be opened."""
_ID_BYTES: Final = 32
_PATIENCE_SECONDS: Final = 10.0
_LINKS: Final = "/api/v1/dashboard/links"


async def sign_in_link(folder: DataFolder) -> str:
    """Adds a link to the mesh that `pmp credentials` would name, and returns its address.

    The link's token is in the fragment of the address, which browsers send to no server.

    Raises:
        CommandFailed: there is no mesh, or it refuses the link.
    """
    secret, now, link_id = signing_secret(folder), int(time.time()), secrets.token_urlsafe(_ID_BYTES)
    session = signed(secret, SESSION_ISSUER, Scope.READ.value, now, SESSION_SECONDS)
    admin = credentials(folder, Scope.ADMIN)
    async with connect() as client:
        answer = await call(client, admin, _LINKS, body={"link_id": link_id, "session": session}, patience=_PATIENCE_SECONDS)
    if answer.response.is_error:
        raise CommandFailed(f"the gateway refused the link: {answer.response.status_code} {answer.response.text.strip()}")
    return f"{admin.url}/#sign-in={signed(secret, ISSUER, 'link', now, LINK_SECONDS, id=link_id)}"
