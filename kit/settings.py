"""Settings, read once from `PMP_*` in the environment and never changed: those of all services, and those they share with the gateway.

A setting that a single service reads is a field of that service's own settings, a subclass of `Settings`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MESH_HEADER: Final = "x-pmp-mesh-token"
"""Key of the gRPC metadata that holds the mesh's own credential."""


def mesh_tokens(setting: SecretStr) -> tuple[str, ...]:
    """The credentials in `mesh_token`: the first one is sent, each of them is accepted."""
    return tuple(setting.get_secret_value().split(","))


def _one_or_two(setting: SecretStr) -> SecretStr:
    tokens = mesh_tokens(setting)
    if len(tokens) > _MOST_TOKENS or not all(tokens):
        message = "one credential, or two with a comma between them while they rotate"
        raise ValueError(message)
    return setting


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

    @property
    def mesh_metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata with which a process of the mesh calls another."""
        return ((MESH_HEADER, mesh_tokens(self.mesh_token)[0]),)

    def address(self, service: str) -> str:
        """Address of a service, `host:port`."""
        return self.service_addresses.get(service) or self.service_address.replace("{service}", service)

    def address_of_streams(self, service: str) -> str:
        """Address of a service's streams, `host:port`."""
        return self.stream_addresses.get(service) or self.stream_address.replace("{service}", service)


class Settings(MeshSettings):
    """The settings that all services share. Secrets have no defaults; `OTEL_*` belongs to the OpenTelemetry SDK."""

    listen: str = "0.0.0.0:50051"
    """Address and port of the gRPC server."""

    stream_listen: Address = "0.0.0.0:50052"
    """Address and port for streams over HTTP, of processes that serve some."""

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

    Each service may have its own account, which also reads and adds keys in the database of persons' keys.
    """

    subject_keys_url: str | None = None
    """SQLAlchemy URL of the database of persons' keys; by default `database_url` with `subject_keys` for `{service}`."""

    database_pool: int = Field(default=8, ge=1)
    """Most connections one process holds to its database."""

    redis_url: str
    """The Redis that holds the log: `appendonly yes`, `appendfsync always`, `noeviction`."""

    log_partitions: int = Field(default=4, ge=1, le=1024)
    """Partitions of each topic. Fixed by the first start; another number refuses to start."""

    log_max_bytes: int = Field(default=268_435_456, ge=1_048_576)
    """Memory of Redis above which intake stops with 429: at most 60 % of its maxmemory, so that a full log drains."""

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
        """URL of a service's own database."""
        return self.database_url.replace("{service}", service)

    @property
    def keys_database_url(self) -> str:
        """URL of the database of persons' keys."""
        return self.subject_keys_url or self.database(KEYS_DATABASE)
