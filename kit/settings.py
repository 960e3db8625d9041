"""Settings, read once from `PMP_*` and never changed, except secrets in files: those of all services, and those shared with the gateway.

A setting is a variable of the environment or, in the folder that `PMP_SECRETS_DIR` names, a file with the variable's name. Secrets
in files may change while a process runs: where a property returns one, it returns the newest.

A setting that a single service reads is a field of that service's own settings, a subclass of `Settings`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, PrivateAttr, SecretStr, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict, SettingsError

from kit.credentials import urls
from kit.credentials.files import FOLDER, Followed, read, secret_file

MESH_HEADER: Final = "x-pmp-mesh-token"
"""Key of the gRPC metadata that holds the mesh's own credential."""


def _tokens(setting: str) -> tuple[str, ...]:
    tokens = tuple(setting.split(","))
    if len(tokens) > _MOST_TOKENS or not all(tokens):
        message = "one credential, or two with a comma between them while they rotate"
        raise ValueError(message)
    return tokens


def _one_or_two(setting: SecretStr) -> SecretStr:
    _tokens(setting.get_secret_value())
    return setting


def is_private(host: str) -> bool:
    """True for an address of this machine or of a private network, or for a name that only such a network knows."""
    try:
        return ip_address(host.strip("[]")).is_private
    except ValueError:
        return "." not in host


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`; the host of IPv6 stands in brackets, which are taken off.

    Raises:
        ValueError: it has no host or no port.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("expected host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _address(value: str) -> str:
    split_address(value)
    return value


KEYS_DATABASE: Final = "subject_keys"
"""Name of the database of persons' keys, used in place of a service's name.

Its backups must be short-lived: with one, an erasure can be undone.
"""
_MOST_TOKENS: Final = 2
MeshToken: TypeAlias = Annotated[SecretStr, AfterValidator(_one_or_two)]
"""The mesh's own credential; while it rotates, two."""
Address: TypeAlias = Annotated[str, AfterValidator(_address)]
"""`host:port`."""


class WrongSetting(ValueError):
    """A setting is wrong in a way that only the service that reads it can see. The message is for the operator."""


class MeshSettings(BaseSettings):
    """The settings that every process of the mesh shares, the gateway included."""

    model_config = SettingsConfigDict(env_prefix="PMP_", frozen=True, use_attribute_docstrings=True, extra="ignore")
    _followed: dict[str, Followed[Any] | None] = PrivateAttr(default_factory=dict[str, Followed[Any] | None])

    secrets_dir: Path | None = None
    """Folder of secrets: files with the names of the variables that they replace. A variable has precedence over its file."""

    mesh_token: MeshToken
    """The mesh's own credential, without which a service refuses a caller; after a comma, another that is accepted too."""

    site_name: str = Field(default="shop", pattern=r"^[A-Za-z0-9._-]{1,100}$")
    """Name of the shop: the owner of the API key, as services see it in `x-pmp-client`."""

    site_hosts: frozenset[str] = frozenset()
    """Host names of the shop itself as a JSON list, `*.shop.example` for all below a domain: pages there are never a source of traffic."""

    service_address: str = "{service}-service:50051"
    """Address of a service, `{service}` being its name."""

    service_addresses: dict[str, Address] = {}
    """Addresses that differ from `service_address`, by service, as JSON."""

    stream_address: str = "{service}-service:50052"
    """Address at which a service serves streams over HTTP, `{service}` being its name."""

    stream_addresses: dict[str, Address] = {}
    """Addresses that differ from `stream_address`, by service, as JSON."""

    certificates: Path | None = None
    """Folder with `tls.crt`, `tls.key` and `ca.crt`. With it services are called with TLS only, and by callers that have a certificate
    of that authority; by default TLS is not used. The files are read again when they change."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  (there is none)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  (of a folder that is not known before)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Is called by pydantic for the sources of the settings, the first of which has precedence.

        Raises:
            SettingsError: the folder of secrets does not exist.
        """
        folder = os.environ.get(FOLDER) or None
        if folder and not Path(folder).is_dir():
            raise SettingsError(f"{FOLDER}: there is no folder {folder}")
        return init_settings, env_settings, SecretsSettingsSource(settings_cls, secrets_dir=folder)

    @property
    def token_source(self) -> Callable[[], tuple[str, ...]]:
        """Returns the mesh's own credentials at the moment of a call: the first one is sent, each of them is accepted."""
        if followed := self.follow("mesh_token", _tokens):
            return followed.value
        tokens = _tokens(self.mesh_token.get_secret_value())
        return lambda: tokens

    @property
    def mesh_tokens(self) -> tuple[str, ...]:
        """What `token_source` returns now."""
        return self.token_source()

    @property
    def mesh_metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata with which a process of the mesh calls another at this moment."""
        return ((MESH_HEADER, self.mesh_tokens[0]),)

    def address(self, service: str) -> str:
        """Address of a service, `host:port`."""
        return self.service_addresses.get(service) or self.service_address.replace("{service}", service)

    def address_of_streams(self, service: str) -> str:
        """Address of a service's streams, `host:port`."""
        return self.stream_addresses.get(service) or self.stream_address.replace("{service}", service)

    def follow(self, field: str, parse: Callable[[str], Any]) -> Followed[Any] | None:
        """Follows the file of a setting; None if the setting does not come from a file.

        Args:
            field: its name.
            parse: makes the value of what the file says; raises ValueError if that is of no use.
        """
        if field not in self._followed:
            file = secret_file(f"PMP_{field}".upper())
            self._followed[field] = Followed([file], lambda: parse(read(file))) if file else None
        return self._followed[field]

    def newest(self, field: str, parse: Callable[[str], Any]) -> Any:
        """A setting at this moment: what `parse` makes of its file, or what was read at the start if it does not come from one."""
        followed = self.follow(field, parse)
        return followed.value() if followed else getattr(self, field)


class Settings(MeshSettings):
    """The settings that all services share. Secrets have no defaults; `OTEL_*` belongs to the OpenTelemetry SDK."""

    listen: str = "0.0.0.0:50051"
    """Address and port of the gRPC server."""

    stream_listen: Address = "0.0.0.0:50052"
    """Address and port for streams over HTTP, of processes that serve some."""

    health_listen: Address | None = None
    """Address and port for grpc.health.v1 alone, without TLS: for probes that have no certificate. By default there is none."""

    metrics_port: int = 0
    """Port of the Prometheus endpoint, on the address of `listen`; 0 serves none."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log line to write."""

    drain_seconds: float = 10.0
    """How long running calls may continue after SIGTERM."""

    drain_delay_seconds: float = 0.0
    """How long new calls are still accepted after SIGTERM, while load balancers remove the address."""

    most_calls: int = Field(default=1024, ge=8)
    """Most calls of one rpc in progress at once; further ones are refused with `retry-after`."""

    slow_call_seconds: float = Field(default=5.0, gt=0)
    """While calls of an rpc take longer than this, fewer of them are admitted at once."""

    vault_key: SecretStr
    """32 bytes in base64 from which the keys for keyed hashes and for signatures are derived. It never changes."""

    key_encryption_keys: SecretStr
    """32 bytes in base64 that wrap the keys of persons; after it, with commas, older ones until `pmp keys rotate` has run."""

    database_url: str
    """SQLAlchemy URL with `{service}` in the place of the database's name: `mysql+aiomysql` or `sqlite+aiosqlite`.

    `?ssl_ca=FILE` connects to MySQL with TLS, `&ssl_cert=FILE&ssl_key=FILE` with a certificate of the client's as well.
    Each service may have its own account, which also reads and adds keys in the database of persons' keys.
    """

    subject_keys_url: str | None = None
    """SQLAlchemy URL of the database of persons' keys; by default `database_url` with `subject_keys` for `{service}`."""

    database_pool: int = Field(default=8, ge=1)
    """Most connections one process holds to its database."""

    redis_url: str
    """The Redis that holds the log: `appendonly yes`, `appendfsync always`, `noeviction`.

    `redis+cluster://` names any node of a Redis Cluster, and `rediss+cluster://` one with TLS.
    `rediss://` connects with TLS, `?ssl_ca_certs=FILE` by an authority of its own, `&ssl_certfile=FILE&ssl_keyfile=FILE` with a
    certificate of the client's as well.
    """

    log_partitions: int = Field(default=4, ge=1, le=1024)
    """Partitions of each topic. Fixed by the first start; another number refuses to start."""

    log_max_bytes: int = Field(default=268_435_456, ge=1_048_576)
    """Memory of Redis, of a cluster's fullest shard, above which intake stops with 429: at most 60 % of its maxmemory, to drain."""

    intake_key_keep: timedelta = timedelta(days=30)
    """How long values sealed on arrival can be opened: a dead letter that waits longer loses its e-mail address."""

    topic_keep: timedelta = timedelta(hours=6)
    """How long published messages stay in the topics and the outbox; the tables keep the history."""

    topic_max_bytes: int = Field(default=16_777_216, ge=1_048_576)
    """Memory of one partition of a topic above which its oldest entries are trimmed before `topic_keep`."""

    dead_letter_limit: int = Field(default=100, ge=0)
    """Messages of a topic that may fail and be set aside within `dead_letter_window`; before it sets more aside, its consumer halts."""

    dead_letter_window: timedelta = Field(default=timedelta(hours=1), gt=timedelta(0))
    """The time over which dead letters are counted for `dead_letter_limit`."""

    site_url_parameters: frozenset[str] = frozenset()
    """URL parameters whose values are kept, beside those known to identify no person, as a JSON list: `["s", "voucher"]`."""

    site_currency: str = Field(default="USD", pattern="^[A-Z]{3}$")
    """ISO 4217 code of the currency in which figures are summed."""

    site_timezone: ZoneInfo = ZoneInfo("UTC")
    """The time zone of the shop's day."""

    site_retention: timedelta = timedelta(days=1095)
    """How long events are kept; older ones are refused, and deleted."""

    site_retention_tables: dict[Annotated[str, Field(pattern=r"^[a-z]+\.[a-z_]+$")], Annotated[timedelta, Field(gt=timedelta(0))]] = {}
    """How long rows of a table are kept, as JSON by service and table: `{"journeys.user_journeys": "P730D"}`."""

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("site_timezone", mode="before")
    @classmethod
    def _zone(cls, value: object) -> object:
        try:
            return ZoneInfo(value) if isinstance(value, str) else value
        except (ZoneInfoNotFoundError, ValueError) as error:
            message = "not a timezone of the IANA database, such as Europe/Berlin"
            raise ValueError(message) from error

    def database(self, service: str) -> str:
        """URL of a service's own database, with the account of this moment."""
        url: str = self.newest("database_url", urls.database_url)
        return url.replace("{service}", service)

    @property
    def keys_database_url(self) -> str:
        """URL of the database of persons' keys, with the account of this moment."""
        return self.newest("subject_keys_url", urls.database_url) or self.database(KEYS_DATABASE)

    @property
    def log_url(self) -> str:
        """URL of the Redis that holds the log, with the password of this moment."""
        return self.newest("redis_url", urls.redis_url)
