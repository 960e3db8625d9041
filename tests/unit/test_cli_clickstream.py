from __future__ import annotations

import uuid
from collections import Counter

from cli.clickstream import BATCH, IDS, count_types, event, funnel, outcome, purchases, read_rows, registrations, requests

ROWS = read_rows()
PLAN = list(requests(ROWS))
GOOD = [page for request in PLAN for index, page in enumerate(request.events) if index not in request.malformed]


def test_every_row_is_sent_and_some_are_sent_twice() -> None:
    sent = Counter(page["id"] for page in GOOD)
    assert set(sent) == {str(uuid.uuid5(IDS, str(number))) for number in range(1, 31_107)}
    assert set(sent.values()) == {1, 2}


def test_a_run_is_the_same_each_time() -> None:
    assert list(requests(ROWS)) == PLAN


def test_batches_are_of_at_most_a_hundred() -> None:
    sizes = Counter(len(request.events) for request in PLAN if request.is_batch)
    assert max(sizes) == BATCH == sizes.most_common(1)[0][0]


def test_purchases_and_first_events_of_visitors_are_sent_by_themselves() -> None:
    alone = {page["id"] for request in PLAN if not request.is_batch for page in request.events}
    purchases = {event(number, row)["id"] for number, row in enumerate(ROWS, start=1) if row["event"] == "purchase"}
    assert purchases < alone
    assert {page["user_id"] for page in GOOD if page["id"] in alone} == {str(number) for number in range(1, 601)}


def test_malformed_events_have_ids_of_their_own() -> None:
    malformed = {request.events[index]["id"] for request in PLAN for index in request.malformed}
    assert malformed
    assert malformed.isdisjoint(page["id"] for page in GOOD)


def test_malformed_events_come_alone_and_within_batches() -> None:
    assert {request.is_batch for request in PLAN if request.malformed} == {True, False}
    assert all(len(request.malformed) == 1 for request in PLAN if request.malformed)


def test_the_outcome_counts_what_is_sent() -> None:
    expected = outcome(PLAN)
    assert (expected.accepted, expected.distinct) == (len(GOOD), 31_106)
    assert expected.accepted + expected.rejected == sum(len(request.events) for request in PLAN)


def test_a_short_run_still_has_a_repetition_and_malformed_events() -> None:
    expected = outcome(requests(read_rows(10)))
    assert expected.distinct == 10
    assert expected.accepted > 10
    assert expected.rejected == 3  # one by itself, one in a batch that is sent twice


def test_a_direct_session_has_no_campaign() -> None:
    row = {**ROWS[0], "acquisition_channel": "direct"}
    assert "utm_parameters" not in event(1, row)
    assert event(1, {**row, "acquisition_channel": "email"})["utm_parameters"] == {"source": "email"}


def test_types_are_counted_over_the_rows() -> None:
    assert count_types(ROWS).most_common(2) == [("page_view", 21_187), ("product_view", 6851)]


def test_every_user_registers_once_in_the_first_session() -> None:
    people = registrations(ROWS)
    assert [person["wordpress_id"] for person in people] == list(range(1, 601))
    assert len({person["email"] for person in people}) == 600
    first = min(row["timestamp"] for row in ROWS if row["user_id"] == "user_0007")
    assert people[7]["registration_date"].startswith(first.replace(" ", "T"))


def test_every_purchase_is_an_order_and_some_are_reported_twice() -> None:
    orders = purchases(ROWS)
    assert len({order["order_id"] for order in orders}) == 470
    assert len(orders) > 470
    assert len({order["id"] for order in orders}) == len(orders)
    assert {order["amount"] for order in orders} == {199.0}


def test_the_funnel_counts_users_who_took_the_steps_in_their_order() -> None:
    def rows(*events: str, user: str = "user_0000") -> list[dict[str, str]]:
        return [{"user_id": user, "event": name, "timestamp": f"2024-01-01 00:00:{second:02}"} for second, name in enumerate(events)]

    walked = [*rows("a", "b", "a", "c"), *rows("b", "a", "x", "b", user="user_0001"), *rows("c", user="user_0002")]
    assert funnel(walked, ["a", "b", "c"]) == [2, 2, 1]
    assert funnel(walked, ["b", "a"]) == [2, 2]
    assert funnel(walked, ["a", "a"]) == [2, 1]
