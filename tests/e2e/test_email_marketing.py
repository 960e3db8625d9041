"""A shop's tools for e-mail marketing follow what happens in the shop: through the gateway, the topics and the queue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest

from services.destinations.mailchimp.mapping import member_id
from tests import brevo, klaviyo, mailchimp
from tests.brevo import Brevo
from tests.e2e.mesh import Mesh, running
from tests.klaviyo import Klaviyo
from tests.mailchimp import Mailchimp
from tests.servers import until
from tests.vendor import serving

EMAIL = "ada@example.org"
ADA = member_id(EMAIL)


class Shop(NamedTuple):
    """A mesh, and the tools that it delivers to."""

    mesh: Mesh
    mailchimp: Mailchimp
    klaviyo: Klaviyo
    brevo: Brevo

    def call(self, method: str, path: str, body: Mapping[str, Any]) -> Any:
        headers = self.mesh.credentials("admin" if path.endswith("erase") else "site")
        answer = self.mesh.client.request(method, f"{self.mesh.url}/api/v1/{path}", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def chooses(self, user: int, *, marketing: bool) -> None:
        now = datetime.now(UTC).isoformat()
        self.call("PUT", f"users/{user}/consent", {"marketing_emails": marketing, "analytics_tracking": True, "timestamp": now})

    def registers(self, user: int, email: str) -> None:
        self.call("POST", "users/register", {"wordpress_id": user, "email": email, "first_name": "Ada"})

    def known(self, email: str) -> set[bool]:
        """Whether the tools have an address: in agreement if there is one answer only."""
        return {member_id(email) in self.mailchimp.members, email in self.klaviyo.profiles, email in self.brevo.contacts}

    def books(self) -> Mapping[str, Mapping[str, int]]:
        answer = self.mesh.client.get(f"{self.mesh.url}/api/v1/destinations", headers=self.mesh.credentials("read")).json()
        return {
            each["name"]: {name: int(count) for name, count in each["books"].items() if name != "oldest_pending_at"}
            for each in answer["destinations"]
        }


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("mail")
    of_mailchimp, of_klaviyo, of_brevo = Mailchimp(), Klaviyo(), Brevo()
    with serving(of_mailchimp), serving(of_klaviyo), serving(of_brevo):
        file = folder / "destinations.toml"
        file.write_text(f"""
            [newsletter]
            kind = "mailchimp"
            api_key = "MAILCHIMP_KEY"
            list_id = "{mailchimp.LIST}"
            store_id = "shop"
            url = "{of_mailchimp.url}"
            [flows]
            kind = "klaviyo"
            api_key = "KLAVIYO_KEY"
            list_id = "{klaviyo.LIST}"
            url = "{of_klaviyo.url}"
            [contacts]
            kind = "brevo"
            api_key = "BREVO_KEY"
            list_id = {brevo.LIST}
            course_lists = {{ pmp-prep = {brevo.COURSE_LIST} }}
            orders = true
            url = "{of_brevo.url}"
        """)
        keys = {"MAILCHIMP_KEY": mailchimp.KEY, "KLAVIYO_KEY": klaviyo.KEY, "BREVO_KEY": brevo.KEY}
        environment = {"PMP_DESTINATIONS": str(file), "PMP_SITE_CURRENCY": "EUR", **keys}
        with running(folder / "data", environment=environment) as mesh:
            yield Shop(mesh, of_mailchimp, of_klaviyo, of_brevo)


def test_a_buyer_is_followed_from_its_consent_to_its_withdrawal(shop: Shop) -> None:
    shop.registers(42, EMAIL)
    shop.chooses(42, marketing=True)
    until(lambda: ADA in shop.mailchimp.members and EMAIL in shop.klaviyo.marketing and EMAIL in shop.brevo.contacts, 20)
    assert shop.mailchimp.members[ADA]["status"] == "subscribed"
    assert shop.klaviyo.marketing[EMAIL]["consent"] == "SUBSCRIBED"

    now = datetime.now(UTC)
    lines = [{"product_id": "7", "product_name": "PMP Prep", "product_type": "course", "amount": 49, "course_ids": ["pmp-prep"]}]
    order = {"order_id": "1016", "user_id": "42", "timestamp": now.isoformat(), "amount": 49, "currency": "EUR", "lines": lines}
    shop.call("POST", "purchases/track", {**order, "payment_status": "completed", "payment_method": "stripe"})
    until(lambda: "1016" in shop.mailchimp.orders and "Placed Order" in shop.klaviyo.metrics(EMAIL), 20)
    until(lambda: {"stage:customer", "course:pmp-prep"} <= shop.mailchimp.tags[ADA], 20)
    until(lambda: "1016" in shop.brevo.orders and "order_placed" in shop.brevo.names(EMAIL), 20)
    assert shop.brevo.contacts[EMAIL]["listIds"] == [brevo.LIST, brevo.COURSE_LIST]

    refund = {"reference": "1017", "amount": 49, "refunded_total": 49, "timestamp": (now + timedelta(seconds=1)).isoformat()}
    shop.call("POST", "purchases/1016/refunds", refund)
    until(lambda: shop.mailchimp.orders["1016"]["financial_status"] == "refunded", 20)
    until(lambda: "Refunded Order" in shop.klaviyo.metrics(EMAIL), 20)
    until(lambda: shop.brevo.orders["1016"]["status"] == "refunded" and shop.brevo.contacts[EMAIL]["listIds"] == [brevo.LIST], 20)

    shop.chooses(42, marketing=False)
    until(lambda: shop.mailchimp.members[ADA]["status"] == "unsubscribed", 20)
    until(lambda: shop.klaviyo.marketing[EMAIL]["consent"] == "UNSUBSCRIBED", 20)
    until(lambda: shop.brevo.contacts[EMAIL]["emailBlacklisted"], 20)


def test_who_never_consented_is_sent_nowhere(shop: Shop) -> None:
    known = {**shop.mailchimp.members}, {**shop.klaviyo.profiles}, {**shop.brevo.contacts}
    shop.registers(43, "bob@example.org")
    shop.chooses(43, marketing=False)
    until(lambda: all(books["withheld"] >= 1 for books in shop.books().values()), 20)
    until(lambda: all(books["pending"] == 0 for books in shop.books().values()), 20)
    assert (shop.mailchimp.members, shop.klaviyo.profiles, shop.brevo.contacts) == known
    assert all(books["dead_lettered"] == 0 for books in shop.books().values())


def test_an_address_that_changes_is_followed_and_an_erasure_deletes_the_person_under_both(shop: Shop) -> None:
    former, email = "eve@former.example", "eve@example.org"
    shop.registers(44, former)
    shop.chooses(44, marketing=True)
    until(lambda: shop.known(former) == {True})
    shop.call("PATCH", "users/44", {"email": email, "updated_at": datetime.now(UTC).isoformat()})
    until(lambda: shop.known(email) == {True})
    assert shop.known(former) == {False}, "nobody is mailed there any more"
    shop.call("POST", "users/erase", {"email": email})
    until(lambda: member_id(email) in shop.mailchimp.forgotten and {email, former} <= {*shop.klaviyo.deleted}, 90)
    until(lambda: shop.known(email) == {False})
