"""Words that identify no person: an erased row keeps a text only if it is one of them.

These columns hold whatever callers send. A word in these lists describes what happened; any other word may be a name and is
removed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from kit.people.subjects.personal_tables import Becomes, Row

OTHER: Final = "other"
"""Replaces a word that is in no list, where the column requires one."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ACTIONS: Final = _words(
    """
    page_view page_leave screen_view scroll click search share file_download form_start form_submit form_view video_start
    video_progress video_complete video_play video_pause session_start first_visit user_engagement web_vitals error download
    watch read open reply call
    lead lead_capture lead_magnet_download generate_lead newsletter newsletter_signup newsletter_subscribe email_open email_click
    email_signup email_subscribe email_unsubscribe subscribe unsubscribe sign_up signup register registration user_registration
    user_registered contact
    trial trial_start booking appointment webinar webinar_signup webinar_join survey quiz chat phone sms email social landing_page event
    order
    login user_login logout user_logout profile_update password_reset
    pricing pricing_view pricing_page view_pricing product_view product_page view_product view_item view_item_list select_item
    course_view course_page view_course view_promotion select_promotion compare
    cart cart_view view_cart add_to_cart remove_from_cart add_to_wishlist begin_checkout checkout checkout_start checkout_started
    initiate_checkout checkout_abandoned cart_abandoned shipping_details payment_details add_shipping_info add_payment_info coupon_applied
    purchase purchase_completed refund payment payment_failed subscription subscription_start subscription_renewal subscription_cancel
    enroll enrolled enrollment enrolment course_enroll course_enrolled course_enrollment course_start course_started course_progress
    course_complete course_completed lesson lesson_view lesson_start lesson_started lesson_complete lesson_completed topic_complete
    quiz_start quiz_started quiz_complete quiz_completed certificate certificate_earned assignment_submit membership
    """
)
"""What people do, and where they meet a shop, as analytics and shops name it."""

MEDIA: Final = _words(
    """
    (none) none cpc ppc cpm cpv cpa paid paidsearch paid_search paid_social display banner retargeting affiliate referral organic search
    social social-network social_media email e-mail newsletter sms push video audio podcast print offline qr app direct internal
    """
)
"""Kinds of traffic."""

SOURCES: Final = _words(
    """
    (direct) direct google bing duckduckgo yahoo ecosia baidu yandex startpage qwant brave naver seznam kagi perplexity chatgpt openai
    facebook fb instagram ig linkedin lnkd twitter x pinterest reddit youtube tiktok whatsapp telegram threads snapchat xing vk tumblr
    quora mastodon bsky bluesky newsletter email mail mailchimp brevo hubspot activecampaign klaviyo mailerlite sms push adwords
    googleads google_ads meta microsoft amazon apple outbrain taboola criteo awin partner podcast print offline qr app
    """
)
"""Where traffic comes from: networks, engines and ways of sending."""

SENDERS: Final = _words(
    """
    plugin theme tracker page browser server webhook import api banner form backfill app cron woocommerce wordpress stripe paypal
    """
)
"""Systems that report events, orders and notices."""

PLATFORMS: Final = _words("wordpress web website woocommerce app ios android desktop server api import")
"""Platforms that events are sent from."""

BROWSERS: Final = frozenset(
    {
        *("Chrome", "Chrome Mobile", "Chrome Mobile WebView", "Chrome Mobile iOS", "Chromium", "Edge", "Edge Mobile", "Firefox"),
        *("Firefox Mobile", "Firefox iOS", "Safari", "Mobile Safari", "Mobile Safari UI/WKWebView", "Opera", "Opera Mobile", "Opera Mini"),
        *(
            "Samsung Internet",
            "Android",
            "IE",
            "Vivaldi",
            "Brave",
            "DuckDuckGo Mobile",
            "Yandex Browser",
            "UC Browser",
            "Facebook",
            "Instagram",
        ),
    }
)
SYSTEMS: Final = frozenset({"Windows", "Mac OS X", "iOS", "Android", "Linux", "Ubuntu", "Chrome OS", "Fedora", "Debian", "Windows Phone"})

PAYMENTS: Final = _words(
    """
    stripe stripe_cc stripe_sepa stripe_klarna stripe_ideal stripe_bancontact stripe_giropay stripe_eps stripe_applepay stripe_googlepay
    woocommerce_payments paypal ppcp-gateway ppcp-credit-card-gateway ppcp-pay-upon-invoice-gateway ppec_paypal klarna klarna_payments
    mollie_wc_gateway_creditcard mollie_wc_gateway_ideal mollie_wc_gateway_paypal mollie_wc_gateway_banktransfer square
    square_credit_card authorize_net_cim_credit_card braintree_credit_card braintree_paypal razorpay amazon_payments_advanced adyen payu
    paddle card credit_card cod bacs cheque invoice bank_transfer sepa direct_debit free manual other
    """
)
"""Payment methods."""


def listed(word: str | None, words: Collection[str]) -> str | None:
    """Returns a word of the list, in any case; None for any other word."""
    return word if word and (word in words or word.strip().casefold() in words) else None


def word(column: str, words: Collection[str], *, otherwise: str | None = None) -> dict[str, Becomes]:
    """Declares a column that keeps a word of the list, and becomes `otherwise` with any other word."""

    def kept(row: Row) -> str | None:
        return listed(row[column], words) or (otherwise if row[column] else row[column])

    return {column: kept}
