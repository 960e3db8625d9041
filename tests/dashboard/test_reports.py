"""The dashboard's views of reports with a form of their own: cohorts, affiliates, coupons and countries."""

from __future__ import annotations

from typing import Any

from playwright.async_api import expect

from tests.dashboard.reader import Reader
from tests.e2e.mesh import Mesh


def rows(mesh: Mesh, report: str, **parameters: str) -> list[dict[str, Any]]:
    """The rows of a report of the last 30 days."""
    answer = mesh.client.get(
        f"{mesh.url}/api/v1/analytics/reports", headers=mesh.credentials("read"), params={"report": report, **parameters}
    )
    assert answer.is_success, answer.text
    return answer.json()["rows"]


async def test_cohorts_show_who_comes_back(reader: Reader, mesh: Mesh) -> None:
    page = reader.page
    await reader.show("?view=customers")
    card = page.get_by_role("region", name="Who comes back")
    known = rows(mesh, "cohorts")
    cohorts = sorted({row["first_order"] for row in known})
    assert known[0]["retention"] == 1
    first = card.get_by_role("row").nth(2)
    expected = [row for row in known if row["first_order"] == cohorts[0]]
    cells = [f"{row['retention']:.0%}" for row in expected]
    await expect(first.get_by_role("cell")).to_have_text([str(expected[0]["persons"]), *cells])
    await expect(card.get_by_role("row")).to_have_count(2 + len(cohorts))
    await card.get_by_role("radio", name="Net revenue").check()
    amounts = [f"US${row['net_revenue']:,.2f}" for row in expected]
    await expect(first.get_by_role("cell")).to_have_text([str(expected[0]["persons"]), *amounts])
    await card.get_by_role("button", name="What does Net revenue mean?").click()
    await expect(page.get_by_role("dialog", name="Net revenue")).to_contain_text("Net revenue of the cohort in the month")
    await page.keyboard.press("Escape")
    await card.get_by_role("radio", name="Registration").check()
    await expect(card.get_by_text("There is nothing to list.")).to_be_visible()
    assert page.url == f"{reader.url}/?view=customers&by=registration"


async def test_affiliates_and_coupons_are_listed_with_what_they_sold(reader: Reader, mesh: Mesh) -> None:
    await reader.show("?view=affiliates")
    for report, name, group in (("affiliates", "Sales of affiliates", "affiliate"), ("coupons", "Coupons used", "coupon")):
        [row] = rows(mesh, report)
        shown = reader.page.get_by_role("region", name=name).get_by_role("row").filter(has_text=row[group])
        await expect(shown.get_by_role("cell").first).to_have_text(str(row["orders"]))
        await expect(shown).to_contain_text(f"US${row['net_revenue']:,.2f}")
    assert reader.complaints == []


async def test_countries_have_their_names(reader: Reader) -> None:
    page = reader.page
    await reader.show()
    countries = page.get_by_role("region", name="Countries")
    await expect(countries.get_by_role("rowheader", name="Germany")).to_be_visible()
    await countries.get_by_role("link", name="All of Countries").click()
    await expect(page.get_by_role("region", name="Revenue by country").get_by_role("rowheader", name="Germany")).to_be_visible()
