"""TLS to the database and to Redis, by what their URLs name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from typing_extensions import override

from kit.credentials.files import AUTHORITY, CERTIFICATE, PRIVATE_KEY
from kit.database.engine import open_database
from kit.log.redis.opening import open_log
from kit.migrate import migrate
from tests.authority import Authority
from tests.servers import PrivateMariaDb, PrivateRedis


class SecureRedis(PrivateRedis):
    """One that is connected to with TLS only, and by clients with a certificate of its authority."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.authority = Authority()
        self.authority.issue(folder / "tls")
        files = folder / "tls"
        self.trusting = f"rediss://127.0.0.1:{self.port}?ssl_ca_certs={files / AUTHORITY}"
        self.url = f"{self.trusting}&ssl_certfile={files / CERTIFICATE}&ssl_keyfile={files / PRIVATE_KEY}"

    @override
    def command(self) -> list[str]:
        files = {"ca-cert-file": AUTHORITY, "cert-file": CERTIFICATE, "key-file": PRIVATE_KEY}
        tls = [word for option, name in files.items() for word in (f"--tls-{option}", str(self.folder / "tls" / name))]
        return [*super().command(), "--port", "0", "--tls-port", str(self.port), *tls]


@pytest.fixture
def secure_redis(tmp_path: Path) -> Iterator[SecureRedis]:
    server = SecureRedis(tmp_path)
    server.start()
    yield server
    server.kill()


async def test_redis_is_reached_with_tls_and_a_certificate_that_is_read_for_each_connection(secure_redis: SecureRedis) -> None:
    folder = secure_redis.folder / "tls"
    async with open_log(secure_redis.url) as log:
        await log.check()
        (folder / CERTIFICATE).write_text("no certificate")
        await log.redis.connection_pool.disconnect()
        with pytest.raises(RedisConnectionError, match="SSL"):
            await log.check()
        secure_redis.authority.issue(folder)
        await log.check()
    async with open_log(secure_redis.trusting) as log:
        with pytest.raises(RedisConnectionError):
            await log.check()
    async with open_log(f"rediss://127.0.0.1:{secure_redis.port}") as log:
        with pytest.raises(RedisConnectionError):
            await log.check()


async def test_a_database_is_migrated_and_read_with_tls_and_a_certificate(mariadb_server: PrivateMariaDb, tmp_path: Path) -> None:
    mariadb_server.authority.issue(tmp_path / "client")
    with pymysql.connect(host="127.0.0.1", port=mariadb_server.port, user="root") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE USER secure@'%' IDENTIFIED BY 'secure' REQUIRE X509")
        cursor.execute("GRANT ALL ON secure.* TO secure@'%'")
    client = tmp_path / "client"
    plain = f"mysql+aiomysql://secure:secure@127.0.0.1:{mariadb_server.port}/secure"
    trusting = f"{plain}?ssl_ca={client / AUTHORITY}"
    url = f"{trusting}&ssl_cert={client / CERTIFICATE}&ssl_key={client / PRIVATE_KEY}"
    await migrate("purchases", url)
    async with open_database(url) as database, database.sessions.reading() as session:
        ((_, cipher),) = await session.execute(text("SHOW STATUS LIKE 'Ssl_cipher'"))
        assert cipher
    Authority("another authority").issue(tmp_path / "stranger")
    strange = url.replace(f"ssl_ca={client}", f"ssl_ca={tmp_path / 'stranger'}")
    for other in (plain, trusting, strange):
        async with open_database(other) as database:
            with pytest.raises(OperationalError):
                await database.check()
    mariadb_server.query("mysql", "DROP DATABASE secure")
    mariadb_server.query("mysql", "DROP USER secure@'%'")
