"""Fixtures shared by several kinds of tests: private servers and a browser, one of each per test process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator

import pytest
from playwright.async_api import Browser, BrowserContext, async_playwright
from pydantic import SecretStr

from kit.database.engine import Database
from kit.log.redis.opening import open_log
from kit.log.redis_log import RedisLog
from kit.people.derivation import configured_key
from kit.people.hashing import KeyedHasher
from kit.people.keys.store import Keys
from kit.people.keys.wrapping import configured_wrapping
from kit.service.resources import Resources, open_resources
from kit.settings import KEYS_DATABASE, Settings
from kit.telemetry.log_lines import log_to_stdout
from tests import logs, order
from tests.databases import newest_database
from tests.servers import PrivateMariaDb, PrivateRedis, PrivateRedisCluster
from tests.variants import of_other_databases

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP shop.example 127.0.0.1",
]
log_to_stdout("warning")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--one-database", action="store_true", help="Run each test on one of the databases that it is for.")
    parser.addoption("--record-durations", action="store_true", help="Write down what each module takes, for the order of the next run.")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--record-durations") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(order.Recorder())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--one-database"):
        others = set(of_other_databases(items))
        config.hook.pytest_deselected(items=list(others))
        items[:] = [item for item in items if item not in others]
    order.sort(items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    logs.begin()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the processes' logs to the report of a failure, since their folders may be deleted later."""
    report = yield
    if report.failed:
        logs.attach(report)
    return report


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRedis]:
    server = PrivateRedis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRedisCluster]:
    cluster = PrivateRedisCluster(tmp_path_factory.mktemp("redis-cluster"))
    cluster.start()
    yield cluster
    cluster.kill()


@pytest.fixture(scope="module")
def redis_of_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRedis]:
    """One for a module's mesh alone, which may be killed."""
    server = PrivateRedis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def mariadb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateMariaDb]:
    server = PrivateMariaDb(tmp_path_factory.mktemp("mariadb"))
    server.install()
    yield server
    server.kill()


@pytest.fixture(params=["sqlite", "mariadb"])
def database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """URL of databases, with `{service}` in it, on each kind of server. On MariaDB those that `newest_database` uses again."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('sqlite')}/{{service}}.db"
    server: PrivateMariaDb = request.getfixturevalue("mariadb_server")
    return server.url.replace("{service}", "{service}_again")


@pytest.fixture
async def log(redis_server: PrivateRedis) -> AsyncIterator[RedisLog]:
    """An empty log."""
    async with open_log(redis_server.url) as log:
        await log.redis.flushall()
        yield log


@pytest.fixture
def settings(database_url: str, redis_server: PrivateRedis) -> Settings:
    return Settings(
        listen="127.0.0.1:0",
        mesh_token=SecretStr("the mesh's own"),
        vault_key=SecretStr("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        key_encryption_keys=SecretStr("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="),
        database_url=database_url,
        redis_url=redis_server.url,
        site_hosts=frozenset({"shop.example"}),
    )


@pytest.fixture
async def keys_database(settings: Settings) -> AsyncIterator[Database]:
    """An empty database of keys."""
    async with newest_database(settings, KEYS_DATABASE) as database:
        yield database


@pytest.fixture
def keys(settings: Settings, keys_database: Database) -> Keys:
    """The keys of persons: none so far."""
    return Keys(keys_database, KeyedHasher(configured_key(settings)), configured_wrapping(settings))


@pytest.fixture
async def resources(settings: Settings, log: RedisLog, keys_database: Database) -> AsyncIterator[Resources]:
    """What the roles of a process share, on an empty log and without any keys."""
    assert not await log.redis.dbsize()
    url = keys_database.engine.url.render_as_string(hide_password=False)
    async with open_resources(settings.model_copy(update={"subject_keys_url": url})) as resources:
        yield resources


@pytest.fixture
async def ingestion_database(settings: Settings) -> AsyncIterator[Database]:
    """Ingestion's database at its newest version."""
    async with newest_database(settings, "ingestion") as database:
        yield database


@pytest.fixture(scope="session")
async def chromium() -> AsyncGenerator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM_FLAGS)
        yield browser
        await browser.close()


@pytest.fixture
async def visitor(chromium: Browser) -> AsyncGenerator[BrowserContext]:
    """A visitor with an isolated browser context."""
    context = await chromium.new_context()
    yield context
    await context.close()
