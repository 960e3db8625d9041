"""Customer information as Meta matches it: normalised, then hashed. Pure.

Reference: https://developers.facebook.com/docs/marketing-api/conversions-api/parameters/customer-information-parameters
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final, NamedTuple
from unicodedata import category

import phonenumbers

_COUNTRY: Final = re.compile("[a-z]{2}")
_US_POSTCODE: Final = 5


class Customer(NamedTuple):
    """A person, in plain text; empty texts for what is not known."""

    email: str = ""
    phone: str = ""
    first_name: str = ""
    last_name: str = ""
    city: str = ""
    state: str = ""
    postcode: str = ""
    country: str = ""
    """ISO 3166-1 alpha-2 code."""


def hashed(customer: Customer) -> dict[str, list[str]]:
    """Returns what is known of a customer by Meta's keys: SHA-256 digests in hex of the normalised values."""
    country = _country(customer.country)
    values = {
        "em": _email(customer.email),
        "ph": _phone(customer.phone, country),
        "fn": _name(customer.first_name),
        "ln": _name(customer.last_name),
        "ct": _place(customer.city),
        "st": _place(customer.state),
        "zp": _postcode(customer.postcode, country),
        "country": country,
    }
    return {name: [sha256(value.encode()).hexdigest()] for name, value in values.items() if value}


def _email(text: str) -> str:
    return text.strip().lower()


def _phone(text: str, country: str) -> str:
    """The number with its country code, digits only; empty for none that the country of the address makes sense of."""
    try:
        number = phonenumbers.parse(text, country.upper() or None)
    except phonenumbers.NumberParseException:
        return ""
    if not phonenumbers.is_possible_number(number):
        return ""
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164).lstrip("+")


def _name(text: str) -> str:
    return " ".join(_without(text.lower(), _is_punctuation).split())


def _place(text: str) -> str:
    return _without(text.lower(), lambda character: character.isspace() or _is_punctuation(character))


def _postcode(text: str, country: str) -> str:
    code = _without(text.lower(), lambda character: character.isspace() or character == "-")
    return code[:_US_POSTCODE] if country == "us" else code


def _country(text: str) -> str:
    code = text.strip().lower()
    return code if _COUNTRY.fullmatch(code) else ""


def _is_punctuation(character: str) -> bool:
    """Punctuation and symbols of any script."""
    return category(character)[0] in "PS"


def _without(text: str, is_removed: Callable[[str], bool]) -> str:
    return "".join(character for character in text if not is_removed(character))


def of_billing(billing: Mapping[str, object], email: str, country: str) -> Customer:
    """Returns the customer of an order.

    Args:
        billing: the billing address in the words of WooCommerce, as the shop reported it.
        email: the e-mail address of the order.
        country: code of the country of the address.
    """
    names = {
        "phone": "phone",
        "first_name": "first_name",
        "last_name": "last_name",
        "city": "city",
        "state": "state",
        "postcode": "postcode",
    }
    texts = {name: value for name, key in names.items() if isinstance(value := billing.get(key), str)}
    return Customer(email=email, country=country, **texts)
