"""The figures of the moment: who is here, what was sold today, and what has changed since."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pmp.ingestion.v1.event_pb2 import Channel, Enrichment, Event, EventStored
from pmp.purchases.v1.change_pb2 import EntryKind, LedgerEntry, PurchaseChanged
from pmp.realtime.v1 import realtime_pb2 as pb

from services.realtime.board import changed
from services.realtime.sales import Sale, Sales
from services.realtime.visits import Visits

NOW = 1_795_953_600.0  # 2026-11-29T12:00:00Z


def event(at: float, visitor: str = "ann", **fields: Any) -> EventStored:
    """A page view."""
    enrichment: dict[str, Any] = {"channel": Channel.CHANNEL_INTERNAL, **fields.pop("enrichment", {})}
    made = EventStored(event=Event(event_type="page_view", **fields), enrichment=Enrichment(visitor=visitor, **enrichment))
    made.event.timestamp.FromSeconds(int(at))
    made.received_at.FromSeconds(int(at))
    return made


def test_a_visitor_is_here_for_five_minutes_after_the_last_event() -> None:
    visits = Visits()
    visits.add(event(NOW - 200, "ann"), NOW)
    visits.add(event(NOW - 100, "bob"), NOW)
    visits.add(event(NOW - 10, "ann"), NOW)
    visits.expire(NOW)
    assert visits.visitors == 2
    visits.expire(NOW + 205)
    assert visits.visitors == 1
    visits.expire(NOW + 300)
    assert visits.visitors == 0


def test_page_views_are_those_of_the_last_minute() -> None:
    visits = Visits()
    for seconds in (0, 10, 59, 90):
        visits.add(event(NOW - seconds), NOW)
    click = event(NOW)
    click.event.event_type = "click"
    visits.add(click, NOW)
    assert visits.page_views_per_minute(NOW) == 3
    assert visits.page_views_per_minute(NOW + 65) == 0


def test_crawlers_updates_late_events_and_unnamed_visitors_do_not_count() -> None:
    visits = Visits()
    visits.add(event(NOW, "bot", enrichment={"is_bot": True}), NOW)
    visits.add(event(NOW - 301), NOW)
    update = event(NOW)
    update.is_update = True
    visits.add(update, NOW)
    assert (visits.visitors, visits.page_views_per_minute(NOW)) == (0, 0)
    visits.add(event(NOW, ""), NOW)
    assert (visits.visitors, visits.page_views_per_minute(NOW)) == (0, 1)


def test_an_event_of_a_clock_that_is_ahead_counts_when_it_was_received() -> None:
    visits, ahead = Visits(), event(NOW)
    ahead.event.timestamp.FromSeconds(int(NOW) + 80_000)
    visits.add(ahead, NOW)
    assert visits.page_views_per_minute(NOW) == 1
    visits.expire(NOW + 400)
    assert visits.visitors == 0


def test_pages_have_no_query_and_sources_are_those_from_outside() -> None:
    visits = Visits()
    visits.add(event(NOW, page_url="https://shop.example/a?x=1"), NOW)
    visits.add(event(NOW, page_url="https://shop.example/a#part", enrichment={"channel": Channel.CHANNEL_DIRECT}), NOW)
    found = {"channel": Channel.CHANNEL_SEARCH, "traffic_source": "google"}
    visits.add(event(NOW, page_url="https://shop.example/b", enrichment=found), NOW)
    assert visits.pages == {"https://shop.example/a": 2, "https://shop.example/b": 1}
    assert visits.sources == {"direct": 1, "google": 1}


def sale(purchase: str, *entries: tuple[float, str], currency: str = "EUR", sold_at: float = 0.0) -> Sale:
    return Sale(purchase, currency, sold_at or entries[0][0], tuple((at, Decimal(amount)) for at, amount in entries))


def test_revenue_is_the_sum_of_the_entries_of_the_shops_day_by_currency() -> None:
    sales = Sales(ZoneInfo("Asia/Kathmandu"))
    midnight = sales.midnight(NOW)
    assert midnight == NOW - (17 * 60 + 45) * 60
    sales.put(
        [
            sale("yesterday", (midnight - 1, "5.00")),
            sale("today", (midnight, "10.10"), (NOW, "-0.20")),
            sale("refunded today", (midnight - 90_000, "7.00"), (NOW, "-7.00")),
            sale("yen", (NOW, "1500"), currency="JPY"),
            sale("dinar", (NOW, "1.5"), currency="KWD"),
        ]
    )
    sales.expire(NOW)
    assert sales.revenue(NOW) == {"EUR": "2.90", "JPY": "1500", "KWD": "1.500"}
    assert (sales.paid_today(NOW), sales.paid_in_last_minute(NOW)) == (3, 2)
    assert sales.revenue(NOW + 86_400) == {}


def test_the_newest_state_of_an_order_counts() -> None:
    sales = Sales(ZoneInfo("UTC"))
    sales.put([sale("one", (NOW, "10.00"))])
    sales.put([sale("one", (NOW, "10.00"), (NOW, "-10.00"))])
    assert sales.revenue(NOW) == {"EUR": "0.00"}
    order = PurchaseChanged(purchase_id="one", currency="EUR", excluded=True)
    sales.put([Sale.of(order)])
    sales.expire(NOW)
    assert (sales.revenue(NOW), sales.paid_today(NOW)) == ({}, 0)


def test_a_sale_is_dated_by_its_order_and_a_refund_by_itself() -> None:
    order = PurchaseChanged(purchase_id="one", currency="EUR")
    order.sold_at.FromSeconds(int(NOW))
    for kind, seconds, amount in ((EntryKind.ENTRY_KIND_SALE, NOW - 999, "5"), (EntryKind.ENTRY_KIND_REFUND, NOW + 7, "-5")):
        entry = LedgerEntry(kind=kind, amount=amount)
        entry.timestamp.FromSeconds(int(seconds))
        order.entries.append(entry)
    assert Sale.of(order) == Sale("one", "EUR", NOW, ((NOW, Decimal(5)), (NOW + 7, Decimal(-5))))


def figures(**changes: Any) -> pb.StreamDashboardResponse:
    ranking = pb.Ranking(rows=[pb.Ranked(label="a", count=1)])
    same: dict[str, Any] = {
        "complete": True,
        "visitors": 3,
        "page_views_per_minute": 9,
        "orders_per_minute": 1,
        "orders_today": 4,
        "revenue_today": pb.Revenue(),
        "top_pages": ranking,
        "top_sources": ranking,
    }
    return pb.StreamDashboardResponse(**{**same, **changes})


@pytest.mark.parametrize(
    "change",
    [{"visitors": 0}, {"orders_today": 5}, {"top_pages": pb.Ranking()}, {"revenue_today": pb.Revenue(amounts=[pb.CurrencyAmount()])}],
    ids=lambda change: next(iter(change)),
)
def test_a_change_holds_what_is_different_and_nothing_else(change: dict[str, Any]) -> None:
    found: Any = changed(figures(), figures(**change))
    assert found is not None
    [(name, value)] = change.items()
    assert {field.name for field, _ in found.ListFields()} - {"at"} == {name}
    assert found.HasField(name)
    assert getattr(found, name) == value


def test_equal_figures_are_no_change() -> None:
    later = figures()
    later.at.GetCurrentTime()
    assert changed(figures(), later) is None
