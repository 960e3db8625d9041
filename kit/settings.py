"""The settings of a service: read once from `PMP_*` in the environment, never changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from re import fullmatch
from typing import Annotated, Final, Literal, Self, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, HttpUrl, SecretStr, StringConstraints, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

SystemName: TypeAlias = Annotated[str, StringConstraints(pattern="^[a-z0-9-]{1,50}$")]
"""Names a system that is no part of the mesh."""


def mesh_tokens(setting: SecretStr) -> tuple[str, ...]:
    """The credentials in `mesh_token`: the first one is sent, each of them is accepted."""
    return tuple(setting.get_secret_value().split(","))


def _one_or_two(setting: SecretStr) -> SecretStr:
    tokens = mesh_tokens(setting)
    if len(tokens) > _MOST_TOKENS or not all(tokens):
        message = "one credential, or two with a comma between them while they rotate"
        raise ValueError(message)
    return setting


KEYS_DATABASE: Final = "subject_keys"
"""Name of the database of persons' keys, in the place of a service's.

Its backups have to be short-lived: with one, an erasure can be undone.
"""
_MOST_TOKENS: Final = 2
MeshToken: TypeAlias = Annotated[SecretStr, AfterValidator(_one_or_two)]
"""The mesh's own credential; while it rotates, two."""


class WrongSetting(ValueError):
    """A setting is wrong in a way that only the service sees. Its text is for the operator."""


class Settings(BaseSettings):
    """What an operator may set. Secrets have no defaults; `OTEL_*` belongs to the OpenTelemetry SDK."""

    model_config = SettingsConfigDict(env_prefix="PMP_", frozen=True, use_attribute_docstrings=True, extra="ignore")

    listen: str = "0.0.0.0:50051"
    """Address and port of the gRPC server."""

    metrics_port: int = 0
    """Port of the Prometheus endpoint, on the address of `listen`; 0 serves none."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log line to write."""

    drain_seconds: float = 10.0
    """How long running calls may go on after SIGTERM."""

    drain_delay_seconds: float = 0.0
    """How long new calls are still taken after SIGTERM, while load balancers take the address out."""

    most_calls: int = Field(default=1024, ge=8)
    """Calls of one rpc that are under way at once, at most; what comes on top is refused with `retry-after`."""

    slow_call_seconds: float = Field(default=5.0, gt=0)
    """While calls of an rpc take longer than this, fewer of them are under way at once."""

    mesh_token: MeshToken
    """The mesh's own credential, without which a service port refuses a caller; after a comma, another that is accepted too."""

    vault_key: SecretStr
    """32 bytes in base64 from which the keys for keyed hashes and for signatures are derived. It never changes."""

    key_encryption_keys: SecretStr
    """32 bytes in base64 that persons' keys are wrapped by; after it, with commas, older ones until `pmp keys rotate` has run."""

    database_url: str
    """SQLAlchemy URL with `{service}` in the place of the database's name: `mysql+aiomysql` or `sqlite+aiosqlite`.

    Each service may have an account of its own, which reads and adds keys in the database of persons' keys, too.
    """

    subject_keys_url: str | None = None
    """SQLAlchemy URL of the database of persons' keys; not given, `database_url` with `subject_keys` for `{service}`."""

    database_pool: int = Field(default=8, ge=1)
    """Most connections one process holds to its database."""

    redis_url: str
    """The Redis that holds the log: `appendonly yes`, `appendfsync always`, `noeviction`."""

    log_partitions: int = Field(default=4, ge=1, le=1024)
    """Partitions of each topic. Fixed by the first start; another number refuses to start."""

    log_max_bytes: int = Field(default=268_435_456, ge=1_048_576)
    """Memory of Redis above which intake stops with 429: at most 60 % of its maxmemory, so that a full log drains."""

    log_disk: Path | None = None
    """A folder on the disk of Redis, where that is a disk of this machine: `pmp up` sets it for the Redis it runs."""

    log_disk_min_bytes: int = Field(default=536_870_912, ge=0)
    """Free bytes of that disk below which intake stops with 429: about twice `log_max_bytes`, so that a full log drains."""

    log_keep: timedelta = timedelta(hours=1)
    """How long processed entries stay in the raw log, for a database that is restored."""

    intake_key_keep: timedelta = timedelta(days=30)
    """How long what was sealed on arrival opens: a dead letter that waits longer loses its e-mail address."""

    topic_keep: timedelta = timedelta(hours=6)
    """How long published messages stay in the topics and the outbox; the tables keep the history."""

    topic_max_bytes: int = Field(default=16_777_216, ge=1_048_576)
    """Memory of one topic's partition above which its oldest entries are trimmed all the same."""

    dead_letter_limit: int = Field(default=100, ge=0)
    """Messages of a topic that may fail and be set aside within `dead_letter_window`; before it sets more aside, its consumer halts."""

    dead_letter_window: timedelta = Field(default=timedelta(hours=1), gt=timedelta(0))
    """The time over which dead letters are counted for `dead_letter_limit`."""

    service_address: str = "{service}-service:50051"
    """Address of another service, `{service}` being its name."""

    service_addresses: dict[str, str] = {}
    """Addresses that differ from `service_address`, by service, as JSON."""

    site_name: str = "shop"
    """Name of the shop: the owner of the API key."""

    site_hosts: frozenset[str] = frozenset()
    """Host names of the shop itself as a JSON list, `*.shop.example` for all below a domain: pages there are never a source of traffic."""

    site_url_parameters: frozenset[str] = frozenset()
    """Parameters of URLs that keep their values as a JSON list, beside those that are known to name nobody: `["s", "voucher"]`."""

    site_currency: str = Field(default="USD", pattern="^[A-Z]{3}$")
    """ISO 4217 code of the currency in which figures are summed up."""

    site_timezone: ZoneInfo = ZoneInfo("UTC")
    """Where the shop's day begins."""

    site_rates_url: HttpUrl | None = None
    """Where exchange rates are fetched every day, in the European Central Bank's layout; not given, nobody fetches any."""

    site_retention: timedelta = timedelta(days=1095)
    """How long events are kept; older ones are refused, and deleted."""

    site_retention_tables: dict[Annotated[str, Field(pattern=r"^[a-z]+\.[a-z_]+$")], Annotated[timedelta, Field(gt=timedelta(0))]] = {}
    """How long rows of a table are kept, as JSON by service and table: `{"journeys.user_journeys": "P730D"}`."""

    site_log_retention: timedelta = timedelta(days=90)
    """How long it is kept what became of each delivery of an event."""

    site_consent_denied: Literal["anonymous", "drop"] = "anonymous"
    """What becomes of events whose person has denied analytics: stored without anything that leads to a person, or not at all."""

    site_consent_unknown: Literal["store", "anonymous", "drop"] = "store"
    """What becomes of events of whose person no choice about analytics is known."""

    site_erased_purchases: Literal["keep", "delete"] = "keep"
    """What becomes of an erased person's purchases: kept under a pseudonym, as tax law asks, or deleted."""

    site_erasure_calls: dict[SystemName, HttpUrl] = {}
    """Addresses of other systems, by name, as JSON: each is told whom to forget. By https, or in a private network."""

    site_erasure_secret: SecretStr | None = None
    """Signs these calls: `whsec_` and 24 to 64 bytes in base64, shared with the systems. Required when there are any."""

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

    @field_validator("site_erasure_calls")
    @classmethod
    def _kept_secret(cls, calls: Mapping[str, HttpUrl]) -> Mapping[str, HttpUrl]:
        if any(url.scheme != "https" and not _is_private(url.host or "") for url in calls.values()):
            message = "not https, and not in a private network: personal data would be read on the way"
            raise ValueError(message)
        return calls

    @model_validator(mode="after")
    def _calls_are_signed(self) -> Self:
        secret = self.site_erasure_secret.get_secret_value() if self.site_erasure_secret else ""
        if self.site_erasure_calls and not fullmatch(r"whsec_[A-Za-z0-9+/]{32,88}={0,2}", secret):
            message = "site_erasure_calls needs site_erasure_secret: whsec_ and 24 to 64 bytes in base64"
            raise ValueError(message)
        return self

    def database(self, service: str) -> str:
        """URL of a service's own database."""
        return self.database_url.replace("{service}", service)

    @property
    def keys_database_url(self) -> str:
        """URL of the database of persons' keys."""
        return self.subject_keys_url or self.database(KEYS_DATABASE)

    def address(self, service: str) -> str:
        """Address of another service."""
        return self.service_addresses.get(service) or self.service_address.replace("{service}", service)


def _is_private(host: str) -> bool:
    """True for an address of this machine or of a private network, or for a name that only such a network knows."""
    try:
        return ip_address(host.strip("[]")).is_private
    except ValueError:
        return "." not in host
