"""A small shop whose figures the dashboard shows: three weeks of visits, orders in two currencies and a refund."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.e2e.mesh import Mesh
from tests.servers import until

DAYS = 21
SOURCES = ("newsletter", "google", "youtube")
COURSES = ("pmp", "agile")
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Version/17.5 Mobile/15E148 Safari/604.1"


def _newest() -> datetime:
    """Ten minutes ago, but today."""
    now = datetime.now(UTC).replace(microsecond=0)
    return max(now - timedelta(minutes=10), now.replace(hour=0, minute=0, second=0))


def _events(newest: datetime) -> list[dict[str, Any]]:
    return [
        {
            "id": f"view-{day}-{visit}-{step}",
            "timestamp": (newest - timedelta(days=day) + timedelta(minutes=step)).isoformat(),
            "event_type": kind,
            "session_id": f"s-{day}-{visit}",
            "page_url": f"https://shop.example/courses/{COURSES[visit % 2]}?utm_source={SOURCES[visit % 3]}&utm_campaign=spring",
            "user_agent": PHONE,
            "metadata": {"course_id": COURSES[visit % 2]},
        }
        for day in range(DAYS)
        for visit in range(1 + day % 4)
        for step, kind in enumerate(("page_view", "page_view", "lead_capture"))
    ]


def _purchases(newest: datetime) -> list[dict[str, Any]]:
    return [
        {
            "id": f"order-{day}",
            "order_id": str(1000 + day),
            "timestamp": (newest - timedelta(days=day)).isoformat(),
            "paid_at": (newest - timedelta(days=day)).isoformat(),
            "user_id": str(1 + day % 5),
            "session_id": f"s-{day}-0",
            "amount": 199,
            "currency": "USD" if day % 4 else "EUR",
            "payment_status": "completed",
            "payment_method": "card",
            "country": "DE" if day % 4 else "",
            "discount_total": 20 * (day % 2),
            "coupon_codes": ["spring10"] * (day % 2),
            "referral_code": "ada" if day % 3 == 0 else "",
            "lines": [
                {"product_id": "201", "product_name": "PMP exam preparation", "product_type": "course", "quantity": 1, "amount": 199}
            ],
        }
        for day in range(DAYS)
    ]


def fill(mesh: Mesh) -> None:
    """Sends the shop's events and orders, and waits until its figures have them."""
    newest = _newest()
    events, purchases = _events(newest), _purchases(newest)
    site, before = mesh.credentials("site"), figures(mesh)["page_views"]
    for path, name, records in (("events", "events", events), ("purchases", "purchases", purchases)):
        answer = mesh.client.post(f"{mesh.url}/api/v1/{path}/batch", headers=site, json={name: records})
        assert answer.json()["accepted"] == len(records), answer.text
    refund = {"amount": 199, "reference": "r-1", "reason": "asked", "timestamp": newest.isoformat()}
    assert mesh.client.post(f"{mesh.url}/api/v1/purchases/1001/refunds", headers=site, json=refund).is_success
    until(
        lambda: (
            figures(mesh)["page_views"] == before + 2 * len(events) / 3
            and figures(mesh)["refunds"] == 199
            and figures(mesh)["orders"] == DAYS
        )
    )


def figures(mesh: Mesh) -> dict[str, float]:
    """The figures of the last 30 days."""
    answer = mesh.client.get(f"{mesh.url}/api/v1/analytics/dashboard", headers=mesh.credentials("read")).json()
    return {each["key"]: each["value"] for each in answer["figures"] if each.get("value") is not None}
