"""How a destination of the kind `wordpress` is configured."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, HttpUrl

from kit.settings import is_private
from services.destinations.configuration import SigningSecret
from services.destinations.kind import Options


def _is_private_on_the_way(url: HttpUrl) -> HttpUrl:
    if url.scheme != "https" and not is_private(url.host or ""):
        message = "is neither https nor in a private network: personal data would be read on the way"
        raise ValueError(message)
    return url


class WordPressOptions(Options):
    """The site, and what signs the calls to it."""

    url: Annotated[HttpUrl, AfterValidator(_is_private_on_the_way)]
    """The plugin's route, such as https://shop.example/wp-json/pmp/v1/users."""
    secret: SigningSecret
    """The environment variable with the secret that signs: the one that signs the mesh's other calls, `PMP_SITE_ERASURE_SECRET`."""
