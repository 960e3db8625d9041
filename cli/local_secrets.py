"""The secrets of a local mesh, generated on its first start."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cli.errors import CommandFailed
from cli.folder import DataFolder, in_pod, write_private
from kit.credentials.signing import SITE_SECRET

NOT_IN_A_POD = (
    "this pod has no keys of callers: run the command on a machine where PMP_URL, PMP_API_KEYS and PMP_JWT_SECRETS name the mesh "
    '(docs/operations.md, "Commands in a pod")'
)
"""Why a command that calls the gateway can't work in a pod."""


class Secrets(BaseModel):
    """The secrets of the local mesh, generated on the first start and kept."""

    model_config = ConfigDict(frozen=True)

    mesh_token: str
    """The mesh's own credential, without which a service port refuses a caller."""
    vault_key: str
    """32 bytes in base64, from which the keys of hashes and signatures are derived."""
    key_encryption_keys: tuple[str, ...] = Field(min_length=1)
    """32 bytes in base64 each: the first wraps persons' keys. Without this file sealed data can't be read."""
    api_keys: tuple[str, ...]
    """Keys of the shop's server; the first is handed out."""
    browser_api_keys: tuple[str, ...]
    """Keys of browsers, valid only with `track` tokens."""
    jwt_secrets: tuple[str, ...]
    """Secrets that sign tokens; the first one signs."""
    redis_password: str
    """Password of the mesh's own Redis."""
    site_secret: str = ""
    """Signs the mesh's calls of the shop's site; empty in a file from before it was kept, until the next start."""

    @classmethod
    def generate(cls) -> Secrets:
        """New secrets of 256 bits each."""
        return cls(
            mesh_token=secrets.token_urlsafe(32),
            vault_key=_key(),
            key_encryption_keys=(_key(),),
            api_keys=(secrets.token_urlsafe(32),),
            browser_api_keys=(secrets.token_urlsafe(32),),
            jwt_secrets=(secrets.token_urlsafe(32),),
            redis_password=secrets.token_urlsafe(32),
            site_secret=_site_secret(),
        )

    @classmethod
    def load(cls, folder: DataFolder) -> Secrets:
        """The secrets of a data folder.

        Raises:
            CommandFailed: the file is missing or damaged.
        """
        try:
            return cls.model_validate_json(folder.secrets.read_text())
        except FileNotFoundError:
            if in_pod(folder):
                raise CommandFailed(NOT_IN_A_POD) from None
            message = f"{folder.path} holds no secrets yet: run `pmp up` first, or name the mesh's folder with --data or PMP_DATA"
            raise CommandFailed(message) from None
        except (ValidationError, UnicodeDecodeError):
            # The cause would show the contents of the file.
            message = f"{folder.secrets} is damaged: restore it (without its key_encryption_keys sealed data can't be read)"
            raise CommandFailed(message) from None

    @classmethod
    def load_or_make(cls, folder: DataFolder, environ: Mapping[str, str] = os.environ) -> Secrets:
        """The secrets of a data folder, generated if there are none. One for the site that the environment has is kept as well.

        Raises:
            CommandFailed: the file is damaged.
        """
        if not folder.secrets.exists():
            write_private(folder.secrets, cls.generate().model_dump_json(indent=2))
        known = cls.load(folder)
        site_secret = environ.get(SITE_SECRET) or known.site_secret or _site_secret()
        if site_secret != known.site_secret:
            known = known.model_copy(update={"site_secret": site_secret})
            write_private(folder.secrets, known.model_dump_json(indent=2))
        return known


def key_encryption_keys(folder: DataFolder, environ: Mapping[str, str] = os.environ) -> str:
    """The keys that wrap persons' keys, in the format of PMP_KEY_ENCRYPTION_KEYS: from the environment, else from a data folder.

    Raises:
        CommandFailed: there are none.
    """
    return environ.get("PMP_KEY_ENCRYPTION_KEYS") or ",".join(Secrets.load(folder).key_encryption_keys)


def add_key(folder: DataFolder) -> None:
    """Adds a new key that wraps persons' keys from the next start of the mesh on. The previous one is kept, older ones are removed.

    Raises:
        CommandFailed: the folder has no secrets.
    """
    known = Secrets.load(folder)
    made = known.model_copy(update={"key_encryption_keys": (_key(), known.key_encryption_keys[0])})
    write_private(folder.secrets, made.model_dump_json(indent=2))


def _site_secret() -> str:
    return f"whsec_{_key()}"


def _key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def vault_key(folder: DataFolder, environ: Mapping[str, str] = os.environ) -> str:
    """PMP_VAULT_KEY: from the environment, else from a data folder.

    Raises:
        CommandFailed: there is none.
    """
    return environ.get("PMP_VAULT_KEY") or Secrets.load(folder).vault_key
