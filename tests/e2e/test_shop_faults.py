"""Each of the shop's services is killed while it commits and publishes: every answer counts once, everywhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import httpx
import pymysql
import pytest
import redis
from pmp.log.v1 import log_pb2
from pmp.purchases.v1.change_pb2 import PurchaseChanged

from cli.layout import Processes
from kit.log.redis_log import key
from tests.e2e.mesh import Mesh, running
from tests.servers import PrivateMariaDb, PrivateRedis, until
from tests.variants import long_test

ORDERS = 60
PRICE = Decimal("19.99")
AGAIN = {429, 502, 503, 504}

Json = dict[str, Any]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, redis_of_mesh: PrivateRedis, mariadb_server: PrivateMariaDb) -> Iterator[Mesh]:
    urls = ["--database-url", mariadb_server.url.replace("{service}", "shop_{service}"), "--redis-url", redis_of_mesh.url]
    with running(tmp_path_factory.mktemp("mesh"), *urls, processes=Processes.EACH) as mesh:
        yield mesh


def _report(mesh: Mesh, path: str, body: Json) -> None:
    """Reports to the mesh, retried until it is answered."""
    headers = mesh.credentials("site", "1")
    deadline = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline, f"{path} is not answered"
        try:
            answer = mesh.client.post(f"{mesh.url}/api/v1/{path}", json=body, headers=headers)
        except httpx.TransportError:
            time.sleep(0.2)
            continue
        if answer.status_code not in AGAIN:
            assert answer.status_code == 200, answer.text
            return
        time.sleep(0.2)


def _query(server: PrivateMariaDb, service: str, sql: str) -> list[tuple[Any, ...]]:
    with pymysql.connect(host="127.0.0.1", port=server.port, user="root", database=f"shop_{service}") as connection:
        cursor = connection.cursor()
        cursor.execute(sql)
        return list(cursor.fetchall())


def _published(server: PrivateRedis, topic: str) -> list[bytes]:
    """Payloads on a topic; asserts that its positions have no gap."""
    payloads: list[bytes] = []
    with redis.Redis.from_url(server.url) as client:
        for partition in range(4):
            entries: Any = client.xrange(key(topic, partition, "log"))
            assert [int(position.split(b"-")[0]) for position, _ in entries] == list(range(1, len(entries) + 1))
            payloads += [record.payload for _, fields in entries for record in log_pb2.Pack.FromString(fields[b"p"]).records]
    return payloads


@long_test
@pytest.mark.parametrize("victim", ["purchases", "identity", "journeys"])
def test_every_order_counts_once_whichever_service_is_killed(
    mesh: Mesh, redis_of_mesh: PrivateRedis, mariadb_server: PrivateMariaDb, victim: str
) -> None:
    first = 1 + ["purchases", "identity", "journeys"].index(victim) * 1000

    def buy(number: int) -> None:
        user = str(number)
        _report(mesh, "users/register", {"wordpress_id": user, "email": f"u{user}@example.org", "session_id": f"s{user}"})
        order = {"timestamp": "2026-11-20T10:00:00Z", "user_id": user, "order_id": user, "amount": float(PRICE), "currency": "USD"}
        _report(mesh, "purchases/track", order)
        _report(
            mesh,
            "journey/touchpoint",
            {"id": f"t{user}", "timestamp": order["timestamp"], "user_id": user, "action": "a", "touchpoint": "t"},
        )
        if number % 20 == 0:
            mesh.kill(victim)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(buy, range(first, first + ORDERS)))
    mine = f"{first} AND {first + ORDERS - 1}"

    def in_identity() -> list[tuple[Any, ...]]:
        return _query(mariadb_server, "identity", f"SELECT lifetime_value FROM users WHERE wordpress_id BETWEEN {mine}")  # noqa: S608

    def in_journeys() -> list[tuple[Any, ...]]:
        return _query(mariadb_server, "journeys", f"SELECT stage FROM user_journeys WHERE CAST(user_id AS UNSIGNED) BETWEEN {mine}")  # noqa: S608

    until(lambda: sum(value for (value,) in in_identity()) >= ORDERS * PRICE, 60)
    assert [value for (value,) in in_identity()] == [PRICE] * ORDERS
    booked = _query(mariadb_server, "purchases", f"SELECT amount FROM purchase_entries WHERE CAST(order_id AS UNSIGNED) BETWEEN {mine}")  # noqa: S608
    assert [amount for (amount,) in booked] == [PRICE] * ORDERS
    published = [PurchaseChanged.FromString(payload).order_id for payload in _published(redis_of_mesh, "purchases")]
    assert sorted(int(number) for number in published if first <= int(number) < first + ORDERS) == list(range(first, first + ORDERS))
    until(lambda: len(in_journeys()) >= 2 * ORDERS, 60)
    assert sorted(stage for (stage,) in in_journeys()).count("purchase") == ORDERS
    assert len(in_journeys()) == 2 * ORDERS
    for service in ("identity", "purchases", "journeys"):
        assert _query(mariadb_server, service, "SELECT COUNT(*) FROM dead_letters") == [(0,)]
        _published(redis_of_mesh, service)
