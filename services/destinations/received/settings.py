"""The settings of webhooks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Final, TypeAlias

from pydantic import Field, HttpUrl, SecretStr, TypeAdapter

from kit.settings import Settings

Secrets: TypeAlias = Annotated[list[Annotated[SecretStr, Field(min_length=8)]], Field(max_length=2)]
"""The secret that signs, as a JSON list; two while one replaces the other. Without any, the sender's webhooks are refused."""

_SECRETS: Final = TypeAdapter[list[SecretStr]](Secrets)


class WebhookSettings(Settings):
    """The settings of what senders of webhooks sign, and how."""

    webhooks_stripe_secrets: Secrets = Field(default=[])
    """The signing secrets of Stripe's endpoint, `whsec_...`, as a JSON list; two while one replaces the other."""

    webhooks_paypal_ids: list[str] = Field(default=[], max_length=2)
    """The ids of the webhook at PayPal, which are part of what it signs, as a JSON list; two while one replaces the other."""

    webhooks_paypal_client_id: str = ""
    """Client id of the REST app at PayPal: PayPal is asked to verify each signature, which by default its certificate does."""

    webhooks_paypal_client_secret: SecretStr = SecretStr("")
    """The secret of that app."""

    webhooks_paypal_api: HttpUrl = HttpUrl("https://api-m.paypal.com")
    """Where PayPal is asked; `https://api-m.sandbox.paypal.com` for its sandbox."""

    webhooks_paypal_invoice_prefix: str = "WC-"
    """What the shop's PayPal plugin writes before the order's number in `invoice_id`."""

    webhooks_woocommerce_secrets: Secrets = Field(default=[])
    """The secrets of WooCommerce's webhooks, as a JSON list; two while one replaces the other."""

    webhooks_mailchimp_secrets: Secrets = Field(default=[])
    """The signing secrets of Mailchimp's webhook, as a JSON list; two while one replaces the other."""

    webhooks_klaviyo_secrets: Secrets = Field(default=[])
    """The secret keys of Klaviyo's webhook, as a JSON list; two while one replaces the other."""

    webhooks_brevo_secrets: Secrets = Field(default=[])
    """The bearer tokens that Brevo's webhooks carry, as a JSON list; two while one replaces the other."""

    webhooks_wait: timedelta = Field(default=timedelta(days=30), gt=timedelta(0))
    """How long what a webhook states is kept for an order or a person that is not known yet."""

    def secrets_of(self, sender: str) -> Sequence[SecretStr]:
        """The secrets of a sender, one of the above, at this moment."""
        return self.newest(f"webhooks_{sender}_secrets", _SECRETS.validate_json)

    def paypal_client_secret(self) -> SecretStr:
        """`webhooks_paypal_client_secret` at this moment."""
        return self.newest("webhooks_paypal_client_secret", SecretStr)
