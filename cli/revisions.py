"""The URLs of the databases, and whether a migration is due in any of them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from cli.layout import databases
from kit.database.revisions import is_newest
from kit.settings import KEYS_DATABASE


def url_of(name: str, url: str, environ: Mapping[str, str] = os.environ) -> str:
    """URL of a service's database, or of that of persons' keys, which may be elsewhere."""
    return (environ.get("PMP_SUBJECT_KEYS_URL") if name == KEYS_DATABASE else None) or url.replace("{service}", name)


def are_newest(url: str, environ: Mapping[str, str] = os.environ) -> bool:
    """True if all databases have their newest revisions, or later ones. False says nothing."""
    return all(is_newest(name, url_of(name, url, environ)) for name in (*databases(), KEYS_DATABASE))
