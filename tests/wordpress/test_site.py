"""The plugin in a site that is served: real requests in, real calls out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from typing_extensions import override

from tests.servers import PrivateMariaDb, free_port, until
from tests.wordpress.sites import HERE, add_pages, build_site, program, run, served, wordpress_6_5

pytestmark = pytest.mark.timeout(900)  # the first run downloads WordPress

_SECRET = "shared by the shop and its gateway"  # 32 bytes and more, as HS256 wants it


@dataclass
class Gateway:
    """Stores the calls it receives and answers them, or hangs."""

    port: int
    calls: list[tuple[str, dict[str, str], Any]] = field(default_factory=list[tuple[str, dict[str, str], Any]])
    hangs: threading.Event = field(default_factory=threading.Event)
    hangs_on: str = ""
    """End of the paths that hang; all of them by default."""
    goes_on: threading.Event = field(default_factory=threading.Event)

    def received(self) -> list[str]:
        """Ids of the events it received."""
        return [event["id"] for path, _, body in self.calls if path.endswith("/events/batch") for event in body["events"]]


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    gateway = Gateway(free_port())

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            gateway.calls.append((self.path, dict(self.headers), body))
            if gateway.hangs.is_set() and self.path.endswith(gateway.hangs_on):
                gateway.goes_on.wait(30)
            results: list[dict[str, Any]] = [{"success": True, "event_id": event["id"]} for event in body.get("events", [])]
            answer = json.dumps({"success": True, "results": results}).encode()
            with suppress(OSError):  # the client has closed the connection
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        def do_PUT(self) -> None:
            self.do_POST()

        @override
        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", gateway.port), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield gateway
    gateway.goes_on.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def site(gateway: Gateway, mariadb_server: PrivateMariaDb, tmp_path: Path) -> Path:
    """The shop's folder."""
    site = build_site(
        wordpress_6_5(),
        tmp_path,
        mariadb_server,
        PMP_ANALYTICS_GATEWAY_URL=f"http://127.0.0.1:{gateway.port}",
        PMP_ANALYTICS_API_KEY="the shop",
        PMP_ANALYTICS_JWT_SECRET=_SECRET,
    )
    add_pages(site, "https://shop.example")
    return site


@pytest.fixture
def shop(site: Path) -> Iterator[httpx.Client]:
    """A visitor of the shop."""
    with served(site, free_port()) as visitor:
        yield visitor


def test_what_a_visitor_does_arrives_and_nobody_waits_for_it(shop: httpx.Client, gateway: Gateway) -> None:
    page = shop.get("/")
    other = shop.get("/", headers={"cookie": "pmp_session=s-1; pmp_visitor=a-1", "user-agent": "another"})
    assert "assets/shop.js" in page.text
    assert page.content == other.content
    assert "set-cookie" not in page.headers

    # The gateway hangs: the beacon's answer comes all the same, without a call.
    gateway.hangs.set()
    kept = _beacon(shop, "b-1")
    assert kept.json()["results"] == [{"success": True, "event_id": "b-1", "violations": []}]
    assert gateway.calls == []

    # A delivery hangs with it; neither pages nor further deliveries do.
    hanging = threading.Thread(target=shop.post, args=("/wp-json/pmp/v1/drain",))
    hanging.start()
    until(lambda: gateway.calls)
    started = time.monotonic()
    assert shop.get("/").status_code == 200
    assert shop.post("/wp-json/pmp/v1/drain").status_code == 204
    assert time.monotonic() - started < 5
    assert len(gateway.calls) == 1

    gateway.hangs.clear()
    gateway.goes_on.set()
    hanging.join()
    until(lambda: shop.post("/wp-json/pmp/v1/drain").status_code == 204 and len(gateway.received()) == 1)
    for _ in range(3):
        shop.post("/wp-json/pmp/v1/drain")
    assert gateway.received() == ["b-1"]

    path, headers, body = gateway.calls[-1]
    assert path == "/api/v1/events/batch"
    claims = jwt.decode(headers["Authorization"].removeprefix("Bearer "), _SECRET, algorithms=["HS256"])
    assert (claims["iss"], claims["scope"]) == ("pmp-wordpress-integration", "site")
    # Next to the event, so that a repetition is the same event.
    context = body["events"][0].pop("context")
    assert context["ip_address"] == "127.0.0.1"
    assert context["user_agent"].startswith("python-httpx")
    assert not any(body["events"][0].get(name) for name in ("ip_address", "user_agent", "user_id"))


def test_visitors_at_the_same_time_lose_nothing_and_report_nothing_twice(shop: httpx.Client, gateway: Gateway) -> None:
    ids = [f"b-{number}" for number in range(120)]
    with ThreadPoolExecutor(8) as visitors:
        kept = list(visitors.map(partial(_beacon, shop), ids))
        again = list(visitors.map(partial(_beacon, shop), ids[:20]))
        drained = list(visitors.map(shop.post, ["/wp-json/pmp/v1/drain"] * 16))

    assert {answer.json()["accepted"] for answer in kept + again} == {1}
    assert {answer.status_code for answer in drained} == {204}
    until(lambda: shop.post("/wp-json/pmp/v1/drain").status_code == 204 and len(gateway.received()) >= len(ids))
    assert sorted(gateway.received()) == sorted(ids)


def test_a_delivery_that_is_killed_is_made_up_for_after_its_lease_and_everything_arrives_under_its_id(
    site: Path, shop: httpx.Client, gateway: Gateway
) -> None:
    ids = [f"b-{number}" for number in range(5)]
    for event_id in ids:
        _beacon(shop, event_id)
    assert shop.post("/wp-json/pmp/v1/choices", json={"session_id": "s-1", "choice": "granted"}).status_code == 202

    # The answer to the visitor arrives and is heard; the events arrive, and who sent them is gone before they are answered.
    gateway.hangs_on = "/events/batch"
    gateway.hangs.set()
    cron = [program("php"), HERE / "cron.php"]
    killed = subprocess.Popen(cron, env={**os.environ, "PMP_SITE": str(site)})
    until(lambda: len(gateway.received()) == len(ids))
    killed.kill()
    assert killed.wait(30) == -signal.SIGKILL
    gateway.hangs.clear()
    gateway.goes_on.set()
    arrived = len(gateway.calls)

    run(cron, site, PMP_LATER="30")
    assert len(gateway.calls) == arrived, "nobody else delivers while the lease lasts"
    run(cron, site, PMP_LATER="61")
    run(cron, site, PMP_LATER="200")

    assert gateway.received() == ids * 2, "sent twice, with the ids that make it count once"
    consents = [path for path, _, _ in gateway.calls if path.endswith("/consent")]
    assert consents == ["/api/v1/users/session:s-1/consent"]


def test_a_lead_and_an_order_pass_while_the_gateway_hangs_and_arrive_once_when_it_is_back(shop: httpx.Client, gateway: Gateway) -> None:
    gateway.hangs.set()
    _beacon(shop, "b-1")
    hanging = threading.Thread(target=shop.post, args=("/wp-json/pmp/v1/drain",))
    hanging.start()
    until(lambda: gateway.calls)

    cookies = {"cookie": "pmp_session=s-1"}
    lead = shop.post("/", data={"lead_email": "ada@example.org", "lead_form": "landing", "lead_website": ""}, headers=cookies)
    assert lead.headers["location"] == "https://shop.example/?guide=sent"
    robot = shop.post("/", data={"lead_email": "robot@example.org", "lead_form": "landing", "lead_website": "x"}, headers=cookies)
    assert robot.headers["location"] == "https://shop.example/?guide=invalid"
    assert "$199.00" in shop.get("/pricing/").text
    buyer = {"billing_first_name": "Ada", "billing_last_name": "Lovelace", "billing_email": "ada@example.org", "product_id": "101"}
    bought = shop.post("/checkout/", data=buyer, headers=cookies)
    thanks = bought.headers["location"].removeprefix("https://shop.example")
    for _ in range(2):
        assert "thank-you" in shop.get(thanks).text
    assert len(gateway.calls) == 1, "the beacon's, which hangs"

    gateway.hangs.clear()
    gateway.goes_on.set()
    hanging.join()

    def bodies(path: str) -> list[Any]:
        return [body for called, _, body in gateway.calls if called == f"/api/v1/{path}"]

    until(lambda: shop.post("/wp-json/pmp/v1/drain").status_code == 204 and bodies("purchases/track"), 60)
    for _ in range(3):
        shop.post("/wp-json/pmp/v1/drain")
    [sold] = bodies("purchases/track")
    assert (sold["amount"], sold["payment_status"], sold["session_id"]) == (199, "processing", "s-1")
    assert [person["email"] for person in bodies("users/register")] == ["ada@example.org"]
    assert [reached["conversion_type"] for reached in bodies("conversions/track")] == ["lead", "signup"]
    # The hanging call may have been given up and made again: an id counts once.
    events = {event["id"]: event["event_type"] for batch in bodies("events/batch") for event in batch["events"]}
    assert sorted(events.values()) == ["lead_capture", "page_view"]


def _beacon(shop: httpx.Client, event_id: str) -> httpx.Response:
    event = {"id": event_id, "timestamp": "2026-11-22T10:15:30Z", "event_type": "page_view", "session_id": "s-1"}
    kept = shop.post("/wp-json/pmp/v1/notes", content=json.dumps({"events": [event]}), headers={"content-type": "text/plain"})
    assert kept.status_code == 202, kept.text
    return kept
