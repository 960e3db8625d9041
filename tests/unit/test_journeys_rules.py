"""Single touchpoints: their stage, where their session came from, their exact amount."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.errors import InvalidRequest
from kit.people.subjects.words import ACTIONS
from kit.rules import page_key, page_token
from services.journeys.journey import Part, Purchase, sessions, stages
from services.journeys.rules import STAGE_OF, SessionFacts, amount, earliest, stage_of, wrong_currency

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("action", "page_url", "stage"),
    [
        ("page_view", "https://shop.example/", "awareness"),
        ("page_view", "", "awareness"),
        ("something_new", "https://shop.example/about", "awareness"),
        ("lead_capture", "https://shop.example/pricing", "interest"),
        ("Newsletter Signup", "", "interest"),
        ("email-signup", "", "interest"),
        ("pricing_view", "", "consideration"),
        ("product_view", "", "consideration"),
        ("page_view", "https://shop.example/Pricing", "consideration"),
        ("page_view", "https://shop.example/pricing/?utm_source=x", "consideration"),
        ("page_view", "/product/pmp-guide", "consideration"),
        ("click", "https://shop.example/courses/pmp-prep", "consideration"),
        ("page_view", "https://shop.example/course/pmp-prep", "consideration"),
        ("page_view", "https://shop.example/pricing-history", "awareness"),
        ("page_view", "https://shop.example/discourse/1?next=/pricing", "awareness"),
        ("page_view", "https://[broken", "awareness"),
        ("add_to_cart", "https://shop.example/product/1", "intent"),
        ("cart", "", "intent"),
        ("begin_checkout", "", "intent"),
        ("checkout", "", "intent"),
        ("purchase", "", "intent"),
        ("enrollment", "", "retention"),
        ("lesson_completed", "https://shop.example/courses/pmp/1", "retention"),
    ],
)
def test_an_action_or_its_page_shows_the_stage(action: str, page_url: str, stage: str) -> None:
    assert stage_of(action, page_url) == stage


def session_facts(minutes: int, is_external: bool, external_id: str, source: str | None) -> SessionFacts:
    at = NOW + timedelta(minutes=minutes)
    one = SessionFacts("session:s", "session:s", at)
    return one._replace(external_at=at, external_id=external_id, source=source, medium=source, campaign=source) if is_external else one


seen = st.builds(
    session_facts, st.integers(0, 5), st.booleans(), st.sampled_from("abcde"), st.none() | st.sampled_from(["google", "newsletter"])
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(seen, min_size=1, max_size=8, unique_by=lambda one: (one.external_at, one.external_id)), st.randoms(use_true_random=False))
def test_a_session_comes_from_where_its_first_external_touchpoint_states_in_any_order(several: list[SessionFacts], chance: Random) -> None:
    whole = earliest(several)
    assert whole.started_at == min(one.started_at for one in several)
    said = sorted((one.external_at, one.external_id, one.source) for one in several if one.external_at)
    assert (whole.external_at, whole.external_id, whole.source) == (said[0] if said else (None, None, None))
    shuffled = chance.sample(several, len(several))
    cut = chance.randrange(len(several)) + 1
    parts = [shuffled[:cut], shuffled[cut:]]
    assert earliest([earliest(part) for part in parts if part]) == whole
    assert earliest([whole, *shuffled]) == whole


@pytest.mark.parametrize(
    ("value", "currency", "exact"),
    [
        (0.1, "USD", "0.10"),
        (1.005, "USD", "1.01"),
        (-1.005, "USD", "-1.01"),
        (199.5, "JPY", "200"),
        (1.2345, "KWD", "1.235"),
        (7, "XAU", "7"),
    ],
)
def test_an_amount_is_exact_in_its_currency(value: float, currency: str, exact: str) -> None:
    assert amount(value, currency) == Decimal(exact)


def test_a_currency_is_one_of_the_standard() -> None:
    assert wrong_currency("currency", "EUR") is None
    assert (found := wrong_currency("currency", "XXZ")) is not None
    assert found.description == "currency is no ISO 4217 code"


def test_stages_come_in_the_order_in_which_they_were_reached() -> None:
    def part(stage: str, minutes: int) -> Part:
        return Part("s", "session:s", stage, 1, NOW + timedelta(minutes=minutes), NOW + timedelta(minutes=minutes))

    parts = [part("intent", 1), part("awareness", 5), part("interest", 1), part("intent", 0), part("purchase", 9), part("retention", 30)]
    bought = [Purchase("a", NOW + timedelta(minutes=9)), Purchase("b", NOW + timedelta(minutes=20))]
    assert [(stage, (at - NOW) // timedelta(minutes=1)) for stage, at in stages(parts, bought)] == [
        ("intent", 0),
        ("interest", 1),
        ("awareness", 5),
        ("purchase", 9),
        ("retention", 20),
    ]
    assert stages([part("purchase", 0), part("awareness", 0)], [])[0][0] == "awareness"


def test_a_session_is_identified_by_its_id_or_by_the_visitor_of_a_day() -> None:
    later = NOW + timedelta(1)
    parts = [
        Part("s", "session:s", "awareness", 2, NOW, later),
        Part("s", "wordpress:42", "intent", 1, later, later),
        Part(None, "visitor:v", "awareness", 1, later, later),
        Part(None, "wordpress:42", "awareness", 1, NOW, NOW),
    ]
    assert sessions(parts) == [("session:s", NOW, later, 3), ("visitor:v", later, later, 1)]
    many = [Part(f"{number:04}", "session:x", "awareness", 1, NOW, NOW) for number in range(1001)]
    assert [sessions(many)[index].identifier for index in (0, -1)] == ["session:0001", "session:1000"]


@pytest.mark.parametrize("name", ["e1", "purchase/7", "with space", "é"])
def test_a_page_token_states_where_the_page_ended(name: str) -> None:
    assert page_key(page_token(NOW, name), str) == (NOW, name)
    assert page_key("", str) is None


@pytest.mark.parametrize("token", ["x", "!", "AAAA", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTkgYQ=="])
def test_any_other_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequest):
        page_key(token, str)


def test_an_erased_touchpoint_still_shows_its_stage() -> None:
    assert set(STAGE_OF) <= ACTIONS
