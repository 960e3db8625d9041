"""The dashboard within wp-admin: a shop is connected by a code, and its staff sees the mesh's figures in WordPress."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import jwt
import pytest
from playwright.async_api import Browser, BrowserContext, FrameLocator, Page, ViewportSize, expect
from pmp_mesh_client.tokens import ISSUER

from cli.folder import DataFolder
from cli.local_secrets import Secrets
from tests.background import eventually
from tests.dashboard import shop as figures
from tests.relay import Relay, relaying
from tests.servers import PrivateMariaDb
from tests.variants import some_of
from tests.wordpress.local import Shop, open_shop
from tests.wordpress.person import PERSON, agrees, answered, logs_in
from tests.wordpress.sites import HERE, ROOT, add_customer, program, run

pytestmark = pytest.mark.timeout(900)  # the first run downloads WordPress

AXE = (ROOT / "dashboard" / "node_modules" / "axe-core" / "axe.min.js").read_text()
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
DASHBOARD = "/wp-admin/admin.php?page=pmp-dashboard"
SETTINGS = "/wp-admin/options-general.php?page=pmp-analytics"
REPORTS = "/wp-json/pmp/v1/mesh/api/v1/analytics/dashboard"
EXPIRED = -120
"""Seconds; Envoy lets clocks differ by a minute."""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Relay]:
    """What the shop reaches the mesh through."""
    with relaying() as relay:
        yield relay


@pytest.fixture(scope="module")
def shop(gateway: Relay, mariadb_server: PrivateMariaDb, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop that does not know its mesh yet."""
    folder = tmp_path_factory.mktemp("shop")
    with open_shop(folder, mariadb_server, gateway=gateway, is_connected=False) as shop:
        yield shop


@pytest.fixture(scope="module")
async def office(shop: Shop, chromium: Browser) -> AsyncIterator[BrowserContext]:
    """The browser of the shop's owner, who has logged in."""
    context = await chromium.new_context(user_agent=PERSON, locale="en-GB", accept_downloads=True, reduced_motion="reduce")
    page = await context.new_page()
    await logs_in(page, shop, "admin")
    await page.close()
    yield context
    await context.close()


class Admin:
    """A page of wp-admin, with what the browser complained of."""

    def __init__(self, page: Page, home: str) -> None:
        self.page = page
        self.home = home
        self.complaints: list[str] = []
        page.set_default_timeout(15_000)
        page.on("console", lambda message: self.complaints.append(f"{message.text} {message.location['url']}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    @property
    def frame(self) -> FrameLocator:
        """The dashboard."""
        return self.page.frame_locator("iframe.pmp-dashboard")

    async def open(self, path: str) -> None:
        await self.page.goto(f"{self.home}{path}")

    async def open_dashboard(self, query: str = "") -> None:
        """Opens a view, and waits until its figures are there."""
        await self.open(DASHBOARD + query)
        await expect(self.frame.locator("h1")).to_be_visible()
        await expect(self.frame.locator("[aria-busy=true]")).to_have_count(0)

    async def connect(self, code: str) -> list[str]:
        """Pastes a code into the settings; returns what these say."""
        await self.open(SETTINGS)
        if await (other := self.page.get_by_text("Connect with another code")).count():
            await other.click()
        await self.page.get_by_label("Code").fill(code)
        await self.page.get_by_role("button", name="Connect", exact=True).click()
        await self.page.wait_for_url(f"**{SETTINGS}")
        return [text.strip() for text in await self.page.locator(".notice p").all_inner_texts()]

    def complained(self) -> list[str]:
        """Without what WordPress causes on every page of wp-admin: its pictures of users are on a host that tests don't reach."""
        return [text for text in self.complaints if not re.search(r"^JQMIGRATE|gravatar\.com", text)]


@pytest.fixture
async def admin(office: BrowserContext, shop: Shop) -> AsyncIterator[Admin]:
    page = await office.new_page()
    await page.set_viewport_size({"width": 1440, "height": 900})
    yield Admin(page, shop.home)
    await page.close()


@pytest.fixture(scope="module")
async def connected(office: BrowserContext, shop: Shop, gateway: Relay) -> Shop:
    """The shop, once it knows its mesh, which has figures."""
    page = await office.new_page()
    found = await Admin(page, shop.home).connect(new_code(shop, gateway))
    assert found[0].startswith("This site reaches the mesh"), found
    await page.close()
    figures.fill(shop.mesh)
    return shop


def new_code(shop: Shop, gateway: Relay) -> str:
    return shop.mesh.pmp("connect", "wordpress", "--url", gateway.url).stdout.strip()


def answers(shop: Shop) -> bool:
    """Whether the mesh synchronises with the shop, and the shop accepts its signature."""
    return shop.mesh.pmp("destinations", "test", "wordpress", check=False).returncode == 0


def signed_again(shop: Shop, code: str, seconds: int) -> str:
    """The code with a token that is valid for some seconds from now on."""
    content = json.loads(base64.urlsafe_b64decode(code + "=="))
    claims = jwt.decode(content["token"], options={"verify_signature": False}) | {"exp": int(time.time()) + seconds}
    secret = Secrets.load(DataFolder(shop.mesh.data)).jwt_secrets[0]
    content["token"] = jwt.encode({**claims, "iss": ISSUER}, secret, algorithm="HS256")
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


async def test_a_shop_is_connected_by_a_code_that_works_once(admin: Admin, shop: Shop, gateway: Relay, chromium: Browser) -> None:
    await admin.open(DASHBOARD)
    await admin.page.get_by_role("link", name="Connect it").click()
    await expect(admin.page.get_by_role("heading", name="Connect this shop")).to_be_visible()
    code = new_code(shop, gateway)
    assert await admin.connect(code[:-9]) == ["This is no code of “pmp connect wordpress”, or not all of it."]
    used = ["The code was used before, or is older than ten minutes. Make a new one."]
    assert await admin.connect(signed_again(shop, code, EXPIRED)) == used
    assert await admin.connect(signed_again(shop, code, 2 * 3600)) == used, "no code is valid for hours"

    assert await admin.connect(code) == [
        f"This site reaches the mesh at {gateway.url}, and the mesh accepts its keys.",
        f"The mesh reaches this site at {shop.home}/wp-json/pmp/v1.",
        "Erasures of the mesh are passed on to this site.",
    ]
    await eventually(lambda: asyncio.to_thread(answers, shop))
    arrivals = admin.page.locator("#pmp-arrivals")
    await expect(arrivals).to_have_text("No page view has arrived in the mesh today.")
    secrets = Secrets.load(DataFolder(shop.mesh.data))
    page = await admin.page.content()
    assert [secret for secret in (*secrets.api_keys, *secrets.jwt_secrets) if secret in page] == []
    await _accessible(admin.page, ".wrap .card")
    visitor = await chromium.new_context(user_agent=PERSON)
    landing = await visitor.new_page()
    await landing.goto(f"{shop.home}/")
    await agrees(landing)
    await answered(landing)
    await expect(arrivals).to_have_text("1 page view has arrived in the mesh today.", timeout=15_000)
    await visitor.close()

    kept = b"".join(path.read_bytes() for path in shop.mesh.data.rglob("*") if path.suffix in {".log", ".aof"})
    content = json.loads(base64.urlsafe_b64decode(code + "=="))
    assert b"pmp:connection:" in kept
    assert [each for each in (*secrets.api_keys, *secrets.jwt_secrets, content["token"], content["key"]) if each.encode() in kept] == []

    assert await admin.connect(code) == used
    await expect(arrivals).to_have_text(re.compile("page view has arrived"))
    assert admin.complained() == []


async def _accessible(page: Page, part: str) -> None:
    await page.evaluate(AXE)
    found = await page.evaluate("([part, tags]) => axe.run(part, {runOnly: tags})", [part, WCAG])
    assert {each["id"]: [node["html"] for node in each["nodes"]] for each in found["violations"]} == {}


@pytest.mark.parametrize("width", some_of([390, 1440], 0))
async def test_wp_admin_shows_the_meshs_figures(admin: Admin, connected: Shop, width: int) -> None:
    await admin.page.set_viewport_size(ViewportSize(width=width, height=900))
    known = figures.figures(connected.mesh)
    for view in ("overview", "acquisition", "journeys", "health"):
        await admin.open_dashboard(f"&view={view}")
        assert await admin.frame.locator("table tbody tr, [data-figure]").count(), f"{view} shows something"
        frame = next(each for each in admin.page.frames if each.parent_frame)
        await frame.evaluate(AXE)
        found: Any = await frame.evaluate("(tags) => axe.run({runOnly: tags})", WCAG)
        assert {each["id"]: [node["html"] for node in each["nodes"]] for each in found["violations"]} == {}, view
        inner, outer = [await each.evaluate("document.documentElement.scrollWidth") for each in (frame, admin.page)]
        assert (inner <= width, outer <= width) == (True, True), view
    await admin.open_dashboard()
    await expect(admin.frame.locator("[data-figure=orders] .value")).to_have_text(f"{known['orders']:,.0f}")
    await expect(admin.frame.locator("[data-figure=refunds] .value")).to_have_text(f"US${known['refunds']:,.2f}")
    assert await admin.frame.get_by_role("button", name="Sign out").count() == 0
    assert await admin.frame.get_by_role("link", name="Live").count() == 0
    await admin.open_dashboard("&view=live")
    await expect(admin.frame.get_by_role("heading", name="Overview")).to_be_visible()
    assert admin.complained() == []


async def test_the_address_of_wp_admin_keeps_the_view(admin: Admin, connected: Shop) -> None:
    await admin.open_dashboard()
    await admin.frame.get_by_role("link", name="Acquisition").click()
    await expect(admin.frame.get_by_role("heading", name="Acquisition", exact=True)).to_be_visible()
    assert admin.page.url == f"{connected.home}{DASHBOARD}&view=acquisition"
    link = admin.frame.get_by_role("link", name="Health")
    assert await link.evaluate("(link) => link.href") == f"{connected.home}{DASHBOARD}&view=health"
    await admin.page.go_back()
    await expect(admin.frame.get_by_role("heading", name="Overview")).to_be_visible()
    await admin.page.go_forward()
    await admin.page.reload()
    await expect(admin.frame.get_by_role("heading", name="Acquisition", exact=True)).to_be_visible()


async def test_a_table_is_saved_as_the_mesh_exports_it(admin: Admin, connected: Shop) -> None:
    await admin.open_dashboard("&view=products")
    async with admin.page.expect_download() as saving:
        await admin.frame.get_by_role("link", name="Products sold as CSV").click()
    download = await saving.value
    saved = (await download.path()).read_text()
    report = f"{connected.mesh.url}/api/v1/analytics/reports.csv?report=products&page_size=10000"
    exported = connected.mesh.client.get(report, headers=connected.mesh.credentials("read"))
    assert saved.splitlines() == exported.text.splitlines()
    assert download.suggested_filename.startswith("products-")


@pytest.mark.usefixtures("connected")
async def test_the_front_page_has_the_last_seven_days(admin: Admin) -> None:
    await admin.open("/wp-admin/index.php")
    widget = admin.page.locator("#pmp-analytics-figures")
    await expect(widget.locator(".pmp-figures > div")).to_have_count(4)
    await _accessible(admin.page, "#pmp-analytics-figures .inside")
    shown = (await widget.get_by_text("Orders").locator("xpath=..").locator(".pmp-value").inner_text()).strip()
    assert shown == "7"
    await widget.get_by_role("link", name="Open the dashboard").click()
    await expect(admin.frame.get_by_role("radio", name="7 days")).to_be_checked()
    await expect(admin.frame.locator("[data-figure=orders] .value")).to_have_text(shown)


async def test_only_staff_with_a_nonce_reads_and_only_reports(admin: Admin, connected: Shop, chromium: Browser) -> None:
    async def status(page: Page, path: str, nonce: str = "", method: str = "GET") -> int:
        headers = {"x-wp-nonce": nonce} if nonce else {}
        return (await page.request.fetch(f"{connected.home}{path}", method=method, headers=headers)).status

    async def nonce(page: Page) -> str:
        return await (await page.request.get(f"{connected.home}/wp-admin/admin-ajax.php?action=rest-nonce")).text()

    own = await nonce(admin.page)
    assert await status(admin.page, REPORTS, own) == 200
    assert await status(admin.page, REPORTS) == 403
    assert await status(admin.page, REPORTS, "forged") == 403
    assert await status(admin.page, REPORTS, own, "POST") == 404
    assert await status(admin.page, "/wp-json/pmp/v1/mesh/api/v1/users/1", own) == 404
    assert await status(admin.page, "/wp-json/pmp/v1/mesh/api/v1/analytics/dashboard?from=2026-02-01&to=2026-01-01", own) == 400
    add_customer(connected.site, "eve")
    customers = await chromium.new_context(user_agent=PERSON)
    page = await customers.new_page()
    await logs_in(page, connected, "eve")
    assert await status(page, REPORTS, await nonce(page)) == 403
    answer = await page.goto(f"{connected.home}{DASHBOARD}")
    assert answer is not None
    assert answer.status == 403
    await page.goto(f"{connected.home}/wp-admin/index.php")
    assert await page.locator("#pmp-analytics-figures, #toplevel_page_pmp-dashboard").count() == 0
    await customers.close()


async def test_while_the_mesh_is_away_the_last_figures_are_shown_with_their_age(admin: Admin, connected: Shop, gateway: Relay) -> None:
    await admin.open_dashboard()
    shown = await admin.frame.locator("[data-figure=net_revenue] .value").inner_text()
    await admin.open("/wp-admin/index.php")
    assert int(run([program("php"), HERE / "age.php"], connected.site)) >= 2
    gateway.is_open = False
    try:
        await admin.open_dashboard()
        await expect(admin.frame.get_by_text("The mesh does not answer.")).to_be_visible()
        await expect(admin.frame.get_by_text("2 hours ago")).to_be_visible()
        await expect(admin.frame.locator("[data-figure=net_revenue] .value")).to_have_text(shown)
        began = time.monotonic()
        await admin.open("/wp-admin/index.php")
        assert time.monotonic() - began < 5
        await expect(admin.page.get_by_text("The mesh does not answer. These figures are 2 hours old.")).to_be_visible()
        await expect(admin.page.locator("#pmp-analytics-figures .pmp-value").first).to_have_text(re.compile(r"\d"))
    finally:
        gateway.is_open = True
    await admin.open_dashboard()
    await expect(admin.frame.get_by_text("The mesh does not answer.")).to_have_count(0)
