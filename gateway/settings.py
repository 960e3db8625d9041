"""The settings of the gateway: read once from the environment, never changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from kit.credentials.files import AUTHORITY, CERTIFICATE, PRIVATE_KEY
from kit.settings import Address, MeshSettings

SOCKET_PATH_BYTES = 107
"""The longest path of a Unix socket on Linux."""
BROWSER = "browser"
"""Owner of every browser key, as services see it in `x-pmp-client`."""
DASHBOARD = "dashboard"
"""The client of every session of the dashboard."""
LINK = "link"
"""The client that opens a one-time link."""
SIGNED = "signed"
"""The client that signs its body: of every call of a SIGNED rpc over REST, and its scope."""


def _socket_path(value: str) -> str:
    if not value.startswith("/") or len(value.encode()) > SOCKET_PATH_BYTES:
        raise ValueError(f"expected the absolute path of a Unix socket, at most {SOCKET_PATH_BYTES} bytes long")
    return value


def _require(setting: str, folder: Path | None, *names: str) -> None:
    missing = [name for name in names if folder and not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{setting}: the folder has no {' and no '.join(missing)}")


ApiKey = Annotated[SecretStr, Field(min_length=16)]
JwtSecret = Annotated[SecretStr, Field(min_length=32)]


class RateLimits(BaseSettings):
    """How much callers may ask for, as `PMP_*`."""

    model_config = SettingsConfigDict(env_prefix="PMP_", env_ignore_empty=True, frozen=True, use_attribute_docstrings=True, extra="ignore")

    rate_user_per_hour: int = Field(default=1000, ge=1)
    """Requests per hour with `track` or `read` tokens, per claim `id`, else per client address."""

    rate_site_per_second: int = Field(default=2000, ge=1)
    """Requests per second of all `site` and `admin` tokens together."""

    rate_signed_per_minute: int = Field(default=600, ge=1)
    """Requests per minute to webhooks, which have neither key nor token, per client address."""


class GatewaySettings(MeshSettings, RateLimits):
    """The settings of the gateway, as `PMP_*`. Secrets have no defaults. Of two `mesh_token`s, calls to services carry the first."""

    model_config = SettingsConfigDict(env_ignore_empty=True, populate_by_name=True)

    gateway_listen: Address = "0.0.0.0:8080"
    """Address and port for REST and gRPC."""

    gateway_tls_listen: Address | None = None
    """Address and port for REST and gRPC with TLS, such as `0.0.0.0:443`; by default there is none."""

    gateway_certificates: Path | None = None
    """Folder with `tls.crt` and `tls.key`, which are read again when a file is moved into it."""

    gateway_redirect_listen: Address | None = None
    """Address and port at which plain HTTP is redirected to `gateway_tls_listen`, such as `0.0.0.0:80`; by default there is none."""

    gateway_admin: Annotated[str, AfterValidator(_socket_path)] = "/run/pmp/gateway.sock"
    """Unix socket of Envoy's admin interface, for the gateway's own user."""

    metrics_port: int = Field(default=0, ge=0)
    """Port for monitoring: `/metrics`, `/healthz`, `/readyz`, independent of the callers' connections; 0 disables it."""

    metrics_host: str = ""
    """Address of that port; by default the one the gateway listens on."""

    gateway_max_connections: int = Field(default=10_000, ge=10)
    """Concurrent connections of callers, at each address; in all at most half of the files that the process may open."""

    gateway_concurrency: int = Field(default=1, ge=1)
    """Envoy's worker threads: one carries about 7000 requests a second."""

    gateway_trusted_hops: int = Field(default=0, ge=0)
    """Load balancers in front that append to `x-forwarded-for`; without any, the client's address is the peer's."""

    gateway_timeout_seconds: float = Field(default=15.0, gt=0, le=25)
    """Longest time a call may take, except those that answer with a stream."""

    gateway_most_calls: int = Field(default=256, ge=1)
    """Unanswered calls per service, counted separately for browsers' calls and all others; further calls are refused with 429."""

    gateway_most_streams: int = Field(default=4096, ge=1)
    """Streams over HTTP (WebSockets and server-sent events) per service; further ones are refused with 429."""

    api_keys: list[ApiKey] = Field(min_length=1, max_length=2)
    """Keys of the shop's servers; two are valid at once while they rotate."""

    browser_api_keys: list[ApiKey] = Field(default=[], max_length=2)
    """Keys of browsers, valid with `track` tokens only."""

    jwt_secrets: list[JwtSecret] = Field(min_length=1, max_length=2)
    """Secrets that sign tokens (HS256, at least 32 bytes); two are valid at once while they rotate."""

    rate_limits_address: Address | None = None
    """Address of an envoyproxy/ratelimit that counts for all gateways together; by default each gateway counts for itself."""

    cors_origins: list[str] | None = None
    """Origins whose pages may call the gateway, `*` for all; by default those of the shop: https and `site_hosts`."""

    otlp_endpoint: str | None = Field(default=None, validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT", pattern=r"^http://[^/]+:\d+/?$")
    """Collector of traces (OTLP over gRPC, without TLS), such as `http://collector:4317`; by default traces are not exported."""

    trace_ratio: float = Field(default=1.0, validation_alias="OTEL_TRACES_SAMPLER_ARG", ge=0, le=1)
    """Sampling ratio of requests that don't continue a trace."""

    @field_validator("site_name")
    @classmethod
    def _is_no_other_client(cls, value: str) -> str:
        if value in {BROWSER, DASHBOARD, LINK, SIGNED}:
            raise ValueError(f"{value!r} is the name of another client")
        return value

    @model_validator(mode="after")
    def _keys_differ(self) -> Self:
        keys = [key.get_secret_value() for key in (*self.api_keys, *self.browser_api_keys)]
        if len(set(keys)) < len(keys):
            raise ValueError("each API key has one owner")
        return self

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.gateway_tls_listen is None) != (self.gateway_certificates is None):
            raise ValueError("gateway_tls_listen and gateway_certificates belong together")
        if self.gateway_redirect_listen is not None and self.gateway_tls_listen is None:
            raise ValueError("gateway_redirect_listen needs gateway_tls_listen")
        _require("gateway_certificates", self.gateway_certificates, CERTIFICATE, PRIVATE_KEY)
        _require("certificates", self.certificates, CERTIFICATE, PRIVATE_KEY, AUTHORITY)
        return self

    @property
    def callers_listeners(self) -> list[str]:
        """Addresses at which callers are served."""
        return [each for each in (self.gateway_listen, self.gateway_tls_listen) if each]

    def origins(self) -> list[str]:
        """Origins whose pages may call the gateway."""
        return sorted(f"https://{host}" for host in self.site_hosts) if self.cors_origins is None else self.cors_origins
