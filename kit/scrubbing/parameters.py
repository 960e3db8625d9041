"""Parameters of URLs that keep their values, since they identify nobody."""

from __future__ import annotations

from typing import Final

# fmt: off
CAMPAIGN_PARAMETERS: Final = frozenset({
    "utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "utm_id", "utm_source_platform", "utm_creative_format",
    "utm_marketing_tactic", "mtm_source", "mtm_medium", "mtm_campaign", "mtm_keyword", "mtm_content", "mtm_cid", "mtm_group",
    "mtm_placement", "pk_source", "pk_medium", "pk_campaign", "pk_keyword", "pk_content", "pk_cid", "matchtype", "network", "device",
    "campaignid", "adgroupid", "adid", "creative", "placement", "gad_campaignid",
})
"""Parameters that state which advertisement led to a session."""

CLICK_PARAMETERS: Final = frozenset({
    "gclid", "gclsrc", "gbraid", "wbraid", "gad_source", "dclid", "srsltid", "fbclid", "msclkid", "ttclid", "li_fat_id", "twclid", "yclid",
    "ymclid", "ysclid", "epik", "rdt_cid", "sccid", "irclickid", "awc", "cjevent", "obclid", "tblci", "qclid", "vmcid",
})
"""Parameters by which advertising networks identify clicks."""

PAGE_PARAMETERS: Final = frozenset({
    # WordPress
    "p", "page", "paged", "page_id", "post", "post_id", "post_type", "cat", "category", "category_name", "tag", "tag_id", "m", "year",
    "monthnum", "day", "w", "order", "orderby", "taxonomy", "term", "attachment_id", "preview", "ver", "v", "lang", "locale", "language",
    # WooCommerce
    "add-to-cart", "remove_item", "undo_item", "quantity", "variation_id", "product_id", "product", "product_cat", "product_tag",
    "products", "order_id", "currency", "country", "min_price", "max_price", "rating_filter", "stock_status", "pay_for_order", "wc-ajax",
    # courses
    "course", "course_id", "lesson", "lesson_id", "topic_id", "quiz", "quiz_id", "unit", "section", "module", "chapter",
    # how a page is shown
    "id", "sort", "sort_by", "dir", "filter", "view", "tab", "step", "limit", "offset", "per_page", "size", "color", "variant", "theme",
    "amp", "format", "type", "status", "source", "medium", "campaign",
})
"""Parameters of pages, products and courses, by number or by name."""
# fmt: on

KNOWN_PARAMETERS: Final = CAMPAIGN_PARAMETERS | CLICK_PARAMETERS | PAGE_PARAMETERS
