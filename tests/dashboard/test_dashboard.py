"""The dashboard in a real Chromium, on a real mesh."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from playwright.async_api import Browser, BrowserContext, ViewportSize, expect
from pmp_mesh_client.tokens import ISSUER

from cli.sign_in import LINK_SECONDS, SESSION_ISSUER, SESSION_SECONDS
from tests.background import eventually
from tests.dashboard import shop
from tests.dashboard.reader import Reader, is_ready, link
from tests.e2e.mesh import Mesh
from tests.servers import until
from tests.variants import some_of

ROOT = Path(__file__).resolve().parents[2]
AXE = (ROOT / "dashboard" / "node_modules" / "axe-core" / "axe.min.js").read_text()
REPORT = "/api/v1/analytics/dashboard"
SIGN_IN = "/api/v1/dashboard/sign-in"
EXPIRED = -120
"""Seconds; Envoy lets clocks differ by a minute."""
VIEWS = ("overview", "live", "acquisition", "products", "journeys", "customers", "affiliates", "health")
KEPT = "pmp.kept"
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


async def test_a_link_signs_in_once_and_leaves_no_trace_in_the_address(chromium: Browser, mesh: Mesh) -> None:
    made = link(mesh)
    context = await chromium.new_context()
    page = await context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(made)
    await expect(page.locator("[data-figure=net_revenue]")).to_be_visible()
    token = made.partition("#sign-in=")[2]
    assert (await page.evaluate("[location.href, history.length, document.cookie]")) == [f"{mesh.url}/", 2, ""]
    assert [url for url in asked if token in url] == []
    (cookie,) = await context.cookies()
    facts = {key: cookie.get(key) for key in ("name", "httpOnly", "sameSite", "secure", "path")}
    assert facts == {"name": "pmp_dashboard", "httpOnly": True, "sameSite": "Strict", "secure": False, "path": "/"}
    await context.clear_cookies()
    await page.goto("about:blank")
    await page.goto(made)
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await expect(page.get_by_text("the link was opened before")).to_be_visible()
    assert await context.cookies() == []
    await context.close()


@pytest.mark.parametrize(("scheme", "width"), some_of([("light", 390), ("light", 1440), ("dark", 390), ("dark", 1440)], 2))
async def test_every_view_is_accessible_and_fits(reader: Reader, width: int, scheme: Any) -> None:
    await reader.page.set_viewport_size(ViewportSize(width=width, height=900))
    await reader.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    for view in VIEWS:
        await reader.show(f"?view={view}")
        assert await reader.page.locator("table tbody tr, [data-figure]").count(), f"{view} shows something"
        await reader.page.evaluate(AXE)
        found = await reader.page.evaluate("(tags) => axe.run({runOnly: tags})", WCAG)
        assert {each["id"]: [node["html"] for node in each["nodes"]] for each in found["violations"]} == {}, f"{view} at {width}, {scheme}"
        assert await reader.page.evaluate("document.documentElement.scrollWidth") <= width
    assert reader.complaints == []
    assert {url.split("/")[2] for url in reader.asked} == {reader.url.removeprefix("http://")}


async def test_the_page_fits_the_narrowest_phone(reader: Reader) -> None:
    await reader.page.set_viewport_size({"width": 360, "height": 740})
    for view in VIEWS:
        await reader.show(f"?view={view}")
        assert await reader.page.evaluate("document.documentElement.scrollWidth") <= 360


async def test_it_shows_the_figures_that_the_mesh_answers(reader: Reader, mesh: Mesh) -> None:
    await reader.show()
    known = shop.figures(mesh)
    first = await reader.page.locator("[data-figure]").first.get_attribute("data-figure")
    assert first == "net_revenue"
    expected = {"orders": f"{known['orders']:,.0f}", "visitors": f"{known['visitors']:,.0f}", "refunds": f"US${known['refunds']:,.2f}"}
    for key, value in expected.items():
        await expect(reader.page.locator(f"[data-figure={key}] .value")).to_have_text(value)
    await expect(reader.page.get_by_role("region", name="Pages").get_by_role("row")).to_have_count(1 + len(shop.COURSES))


async def test_a_figure_leads_to_its_definition(reader: Reader) -> None:
    await reader.show()
    await reader.page.get_by_role("button", name="What does Net revenue mean?").click()
    dialog = reader.page.get_by_role("dialog", name="Net revenue")
    await expect(dialog).to_contain_text("Gross revenue less refunds, with corrections.")
    await expect(dialog).to_contain_text("recorded facts")
    await reader.page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await reader.show("?view=acquisition")
    await reader.page.get_by_role("button", name="What does Bounce rate mean?").click()
    await expect(reader.page.get_by_role("dialog", name="Bounce rate")).to_contain_text("Sessions with one page view at most")


async def test_the_keyboard_is_enough(reader: Reader) -> None:
    page = reader.page
    await reader.show()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the figures")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("w")
    await expect(page).to_have_url(f"{reader.url}/?range=7d")
    await reader.settled()
    days = page.get_by_role("slider", name="Day")
    await days.focus()
    newest = await page.locator(".readout").inner_text()
    await page.keyboard.press("ArrowLeft")
    await expect(page.locator(".readout")).not_to_have_text(newest)

    async def is_said() -> bool:
        """The period before may arrive between the two."""
        return await days.get_attribute("aria-valuetext") == await page.locator(".readout").inner_text()

    await eventually(is_said, 10)
    await page.get_by_role("radio", name="Net revenue").focus()
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_role("heading", name="By day: Orders")).to_be_visible()
    await page.keyboard.press("3")
    await expect(page.get_by_role("heading", name="Acquisition", exact=True)).to_be_visible()
    await page.keyboard.press("?")
    keys = page.get_by_role("dialog", name="Keys")
    await keys.get_by_role("checkbox").focus()
    await page.keyboard.press("Space")
    await page.keyboard.press("Escape")
    await page.keyboard.press("1")
    await expect(page.get_by_role("heading", name="Acquisition", exact=True)).to_be_visible()
    await page.evaluate("localStorage.removeItem('pmp.shortcuts')")
    assert reader.complaints == []


async def test_the_address_keeps_the_view(reader: Reader) -> None:
    page = reader.page
    await reader.show("?range=7d")
    await page.get_by_role("region", name="Sources").get_by_role("row", name="newsletter").wait_for()
    await page.get_by_role("link", name="All of Sources").click()
    await page.get_by_role("radio", name="Campaign").check()
    await page.get_by_title("Sort by Orders").click()
    shared = page.url
    assert shared == f"{reader.url}/?view=acquisition&range=7d&by=campaign&sort=-orders"
    await page.go_back()
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    await page.goto(shared)
    await expect(page.get_by_role("columnheader", name="Orders")).to_have_attribute("aria-sort", "descending")
    await expect(page.get_by_role("rowheader", name="spring")).to_be_visible()


async def test_each_report_of_a_view_is_sorted_and_searched_by_itself(reader: Reader) -> None:
    page = reader.page
    await reader.show("?view=products")
    products, content = page.get_by_role("region", name="Products sold"), page.get_by_role("region", name="Pages and courses")
    await content.get_by_title("Sort by Page views").click()
    await content.get_by_role("searchbox").fill("agile")
    await content.get_by_role("searchbox").press("Enter")
    await expect(content.get_by_role("rowheader")).to_have_text(["agile"])
    await expect(content.get_by_role("columnheader", name="Page views")).to_have_attribute("aria-sort", "descending")
    assert page.url == f"{reader.url}/?view=products&of=content&sort=-page_views&filter=agile"
    await products.get_by_title("Sort by Revenue").click()
    await expect(products.get_by_role("columnheader", name="Revenue")).to_have_attribute("aria-sort", "descending")
    await expect(content.get_by_role("rowheader")).to_have_count(2)
    assert page.url == f"{reader.url}/?view=products&sort=-revenue"


async def test_a_table_is_saved_as_the_mesh_exports_it(reader: Reader, mesh: Mesh) -> None:
    await reader.show("?view=products")
    async with reader.page.expect_download() as saving:
        await reader.page.get_by_role("link", name="Products sold as CSV").click()
    saved = (await (await saving.value).path()).read_text()
    exported = mesh.client.get(f"{mesh.url}/api/v1/analytics/reports.csv?report=products&page_size=10000", headers=mesh.credentials("read"))
    assert saved.splitlines() == exported.text.splitlines()
    await reader.show()
    async with reader.page.expect_download() as saving:
        await reader.page.get_by_role("button", name="Net revenue as CSV").click()
    lines = (await (await saving.value).path()).read_text().splitlines()
    assert (lines[0], len(lines)) == ("day,net_revenue,compared_day,compared", 31)


async def test_german_is_spoken_where_it_is_read(chromium: Browser, session: BrowserContext, mesh: Mesh) -> None:
    context = await chromium.new_context(locale="de-DE", storage_state={"cookies": await session.cookies(), "origins": []})  # pyright: ignore[reportArgumentType]  (a cookie that was read is one to set)
    page = await context.new_page()
    await page.goto(mesh.url)
    await expect(page.get_by_role("heading", name="Überblick")).to_be_visible()
    await expect(page.locator("[data-figure=refunds] .value")).to_have_text("199,00\u00a0$")
    assert await page.evaluate("document.documentElement.lang") == "de"
    await page.get_by_label("Sprache").select_option("en")
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    await context.close()


async def test_a_period_without_anything_says_so(reader: Reader) -> None:
    await reader.show("?from=2020-01-01&to=2020-01-31")
    await expect(reader.page.get_by_text("Nothing was recorded in this period.")).to_be_visible()


async def test_a_refusal_of_the_mesh_is_shown(reader: Reader) -> None:
    await reader.show("?from=2020-02-01&to=2020-01-01")
    await expect(reader.page.get_by_text("The mesh refused to show this.")).to_be_visible()


async def test_without_the_mesh_the_last_figures_are_shown_with_their_age(reader: Reader, mesh: Mesh) -> None:
    page = reader.page
    await reader.show()
    shown = await page.locator("[data-figure=net_revenue] .value").inner_text()
    await page.evaluate(
        '(key) => localStorage.setItem(key, localStorage.getItem(key).replace(/"at":(\\d+)/g, (_, at) => `"at":${at - 7200000}`))', KEPT
    )
    with mesh.unattended():
        mesh.kill("gateway")
        await page.get_by_role("radio", name="Today").check()
        await expect(page.get_by_text("The mesh does not answer.")).to_be_visible()
        await expect(page.locator("[data-figure]")).to_have_count(0)
        await page.get_by_role("radio", name="30 days").check()
        await expect(page.get_by_text("2 hours ago")).to_be_visible()
        await expect(page.locator("[data-figure=net_revenue] .value")).to_have_text(shown)
    until(lambda: is_ready(mesh))
    await page.get_by_role("button", name="Try again").click()
    await expect(page.get_by_text("The mesh does not answer.")).to_be_hidden()


async def test_signing_out_ends_the_session_and_forgets_the_figures(chromium: Browser, mesh: Mesh) -> None:
    context = await chromium.new_context()
    page = await context.new_page()
    await page.goto(link(mesh))
    await expect(page.locator("[data-figure=net_revenue]")).to_be_visible()
    assert "net_revenue" in json.dumps(await page.evaluate("({...localStorage})"))
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert await context.cookies() == []
    assert await page.evaluate("Object.values(localStorage).filter((value) => value.includes('revenue'))") == []
    await context.close()


async def test_reports_of_persons_are_not_kept(reader: Reader) -> None:
    await reader.show("?view=customers")
    await expect(reader.page.get_by_role("rowheader").first).to_be_visible()
    assert "lifetime_value" not in json.dumps(await reader.page.evaluate("({...localStorage})"))


def signed(mesh: Mesh, issuer: str, scope: str, seconds: int, *, secret: str = "", **claims: str) -> str:
    now = int(time.time())
    own: str = json.loads((mesh.data / "secrets.json").read_text())["jwt_secrets"][0]
    return jwt.encode({"iss": issuer, "scope": scope, "iat": now, "exp": now + seconds, **claims}, secret or own, algorithm="HS256")


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["message"]


def with_session(mesh: Mesh, token: str, verb: str = "GET", path: str = REPORT, **headers: str) -> httpx.Response:
    """What a browser with this cookie gets."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.request(verb, f"{mesh.url}{path}", headers={"cookie": f"pmp_language=de; pmp_dashboard={token}", **named})


def test_a_session_opens_reports_and_nothing_else(mesh: Mesh) -> None:
    session = signed(mesh, SESSION_ISSUER, "read", SESSION_SECONDS)
    assert with_session(mesh, session).is_success
    assert with_session(mesh, session, sec_fetch_site="same-origin").is_success
    refused = (403, "A session of the dashboard opens reports and streams only, and for the dashboard's own page only")
    for verb, path in (
        ("POST", "/api/v1/events/track"),
        ("POST", REPORT),
        ("POST", "/api/v1/dashboard/links"),
        ("GET", "/api/v1/users/1"),
        ("DELETE", "/api/v1/users/1/data"),
        ("GET", "/api/v1/gdpr/requests/1"),
    ):
        assert refusal(with_session(mesh, session, verb, path)) == refused, (verb, path)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_gets_nothing_with_it(mesh: Mesh, site: str) -> None:
    answer = with_session(mesh, signed(mesh, SESSION_ISSUER, "read", SESSION_SECONDS), sec_fetch_site=site, origin="https://other.example")
    assert refusal(answer)[0] == 403
    assert "access-control-allow-credentials" not in answer.headers


def test_a_cookie_that_is_none_is_refused(mesh: Mesh) -> None:
    assert refusal(with_session(mesh, ""))[0] == 401
    assert refusal(with_session(mesh, signed(mesh, SESSION_ISSUER, "read", EXPIRED))) == (401, "Jwt is expired")
    forged = signed(mesh, SESSION_ISSUER, "read", SESSION_SECONDS, secret="a secret that somebody made up, long enough")
    assert refusal(with_session(mesh, forged)) == (401, "Jwt verification fails")
    assert refusal(with_session(mesh, signed(mesh, ISSUER, "read", 60)))[0] == 401
    assert refusal(with_session(mesh, signed(mesh, SESSION_ISSUER, "read", 2 * SESSION_SECONDS)))[0] == 401
    for scope in ("admin", "site", "track", "link"):
        assert refusal(with_session(mesh, signed(mesh, SESSION_ISSUER, scope, 60)))[0] == 403, scope


def test_a_stolen_session_is_no_token(mesh: Mesh) -> None:
    session = signed(mesh, SESSION_ISSUER, "read", SESSION_SECONDS)
    key = mesh.credentials("read")["x-api-key"]
    answer = mesh.client.get(f"{mesh.url}{REPORT}", headers={"x-api-key": key, "authorization": f"Bearer {session}"})
    assert refusal(answer)[0] == 401
    assert with_session(mesh, session, x_api_key=key).status_code == 401


def test_a_link_that_cannot_be_opened_says_why(mesh: Mesh) -> None:
    def opened(token: str) -> tuple[int, str]:
        return refusal(mesh.client.post(f"{mesh.url}{SIGN_IN}", headers={"authorization": f"Bearer {token}"}))

    used = "the link was opened before, or is older than 5 minutes: `pmp open` prints a new one"
    assert opened(signed(mesh, ISSUER, "link", LINK_SECONDS, id="x" * 32)) == (401, used)
    assert opened(signed(mesh, ISSUER, "link", EXPIRED, id="x" * 32)) == (401, "Jwt is expired")
    assert opened(signed(mesh, ISSUER, "admin", 60))[0] == 403
    assert opened("a.b.c")[0] == 401
    assert refusal(mesh.client.post(f"{mesh.url}{SIGN_IN}")) == (401, "Jwt is missing")


def test_a_link_opens_nothing_but_a_session(mesh: Mesh) -> None:
    token = signed(mesh, ISSUER, "link", LINK_SECONDS, id="x" * 32)
    key = mesh.credentials("read")["x-api-key"]
    for path in (REPORT, "/api/v1/users/1"):
        assert mesh.client.get(f"{mesh.url}{path}", headers={"x-api-key": key, "authorization": f"Bearer {token}"}).status_code == 403


def test_nothing_secret_is_in_a_log(mesh: Mesh) -> None:
    token = link(mesh).partition("#sign-in=")[2]
    answer = mesh.client.post(f"{mesh.url}{SIGN_IN}", headers={"authorization": f"Bearer {token}"})
    session = answer.cookies["pmp_dashboard"]
    assert with_session(mesh, session).is_success
    link_id = jwt.decode(token, options={"verify_signature": False})["id"]
    written = "".join(path.read_text(errors="replace") for path in mesh.data.glob("logs/*.log"))
    assert [secret for secret in (token, session, link_id) if secret in written] == []
