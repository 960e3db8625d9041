"""`pmp connect wordpress`: a one-time code that connects the shop's site to the mesh."""

from __future__ import annotations

import base64
import json
import os
import secrets
import time
from collections.abc import Mapping
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pmp_mesh_client.tokens import ISSUER, Scope

from cli.calls import call, connect
from cli.credentials import credentials, signed, signing_secret
from cli.errors import CommandFailed
from cli.folder import DataFolder
from cli.local_secrets import Secrets
from kit.credentials.signing import SITE_SECRET

CODE_SECONDS: Final = 600
"""How long a code is valid."""
CONTEXT: Final = b"pmp connection 1"
"""What the sealed settings are bound to."""
_ID_BYTES: Final = 32
_KEY_BITS: Final = 256
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_PATIENCE_SECONDS: Final = 10.0
_CONNECTIONS: Final = "/api/v1/connections"


async def connection_code(folder: DataFolder, url: str = "") -> str:
    """Adds the settings of a site to the mesh that `pmp credentials` would name, sealed, and returns the code that opens them.

    The code contains the gateway's address, a token that takes the settings, and the key that opens them; the mesh never has
    the key. The settings are the gateway's address, the API key, the secret that signs tokens and the one that signs the mesh's calls:
    `PMP_SITE_ERASURE_SECRET`, without which a mesh on this machine has its own.

    Args:
        folder: data folder of a mesh on this machine.
        url: address at which the site reaches the gateway, if it is not the one that `pmp credentials` would print.

    Raises:
        CommandFailed: there is no mesh, or it refuses the settings.
    """
    secret, admin = signing_secret(folder), credentials(folder, Scope.ADMIN)
    address = url.rstrip("/") or admin.url
    settings = {"gateway_url": address, "api_key": admin.api_key, "jwt_secret": secret}
    if erasure_secret := os.environ.get(SITE_SECRET) or _own_site_secret(folder):
        settings["erasure_secret"] = erasure_secret.rpartition(",")[2]  # the site is given the new one of two
    key, connection_id, now = AESGCM.generate_key(_KEY_BITS), secrets.token_urlsafe(_ID_BYTES), int(time.time())
    async with connect() as client:
        body = {"connection_id": connection_id, "sealed": _sealed(key, settings)}
        answer = await call(client, admin, _CONNECTIONS, body=body, patience=_PATIENCE_SECONDS)
    if answer.response.is_error:
        raise CommandFailed(f"the gateway refused the settings: {answer.response.status_code} {answer.response.text.strip()}")
    token = signed(secret, ISSUER, "link", now, CODE_SECONDS, id=connection_id)
    code = json.dumps({"url": address, "token": token, "key": base64.b64encode(key).decode()})
    return base64.urlsafe_b64encode(code.encode()).decode().rstrip("=")


def _own_site_secret(folder: DataFolder) -> str:
    """The secret for the site of the mesh on this machine; empty where the environment names another mesh."""
    return "" if "PMP_JWT_SECRETS" in os.environ else Secrets.load(folder).site_secret


def _sealed(key: bytes, settings: Mapping[str, str]) -> str:
    """Nonce, tag and ciphertext, as PHP's functions take them."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed = AESGCM(key).encrypt(nonce, json.dumps(settings).encode(), CONTEXT)
    return base64.b64encode(nonce + sealed[-_TAG_BYTES:] + sealed[:-_TAG_BYTES]).decode()
