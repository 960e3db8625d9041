"""The settings of gdpr alone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Self, TypeAlias

from pydantic import Field, HttpUrl, SecretStr, StringConstraints, field_validator, model_validator

import services
from kit.credentials.signing import SigningSecrets
from kit.settings import Settings, is_private

SystemName: TypeAlias = Annotated[str, StringConstraints(pattern="^[a-z0-9-]{1,50}$")]
"""Names a system that is no part of the mesh."""

HOLDERS: Final = sorted(path.parent.name for path in Path(services.__path__[0]).glob("*/models.py"))
"""The services that may hold personal data: those with tables."""


class GdprSettings(Settings):
    """The settings that gdpr reads beside those of all services."""

    site_erasure_calls: dict[SystemName, HttpUrl] = Field(default={})
    """Addresses of other systems, by name, as JSON: each is called with the person to erase. By https, or in a private network."""

    site_erasure_secret: SecretStr | None = None
    """Signs these calls: `whsec_` and 24 to 64 bytes in base64, shared with the systems; after a comma, another that signs them too.
    Required when there are any."""

    @field_validator("site_retention_tables")
    @classmethod
    def _services_exist(cls, tables: Mapping[str, timedelta]) -> Mapping[str, timedelta]:
        """Each service checks its own tables; that a service does not exist is seen here alone."""
        if unknown := {name.partition(".")[0] for name in tables} - set(HOLDERS):
            message = f"there is no service {min(unknown)} with tables; there are {', '.join(HOLDERS)}"
            raise ValueError(message)
        return tables

    @field_validator("site_erasure_calls")
    @classmethod
    def _kept_secret(cls, calls: Mapping[str, HttpUrl]) -> Mapping[str, HttpUrl]:
        if any(url.scheme != "https" and not is_private(url.host or "") for url in calls.values()):
            message = "not https, and not in a private network: personal data would be read on the way"
            raise ValueError(message)
        return calls

    @model_validator(mode="after")
    def _calls_are_signed(self) -> Self:
        if self.site_erasure_calls:
            try:
                SigningSecrets(self.site_erasure_secret.get_secret_value() if self.site_erasure_secret else "")
            except ValueError as error:
                message = f"site_erasure_calls needs site_erasure_secret, which {error}"
                raise ValueError(message) from None
        return self

    @property
    def signing_secrets(self) -> SigningSecrets | None:
        """`site_erasure_secret` at this moment; None if there is none."""
        if followed := self.follow("site_erasure_secret", SigningSecrets):
            return followed.value()
        return SigningSecrets(self.site_erasure_secret.get_secret_value()) if self.site_erasure_secret else None
