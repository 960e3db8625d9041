"""Tools > Erase Personal Data of a site, as its administrator's browser works it: one eraser after the other, page by page."""

from __future__ import annotations

import re
from typing import Any, Final

import httpx

_PAGES: Final = 100


class PrivacyTools:
    """An administrator of a site who has logged in.

    Args:
        visitor: somebody on the site; becomes the administrator.
    """

    def __init__(self, visitor: httpx.Client) -> None:
        self._visitor = visitor
        visitor.get("/wp-login.php")  # asks whether cookies are kept
        visitor.post("/wp-login.php", data={"log": "admin", "pwd": "admin", "testcookie": "1"})

    def erase(self, email: str) -> list[str]:
        """Erases somebody; answers what the administrator is told."""
        page = self._visitor.get("/wp-admin/erase-personal-data.php")
        form = {
            "action": "add_remove_personal_data_request",
            "type_of_action": "remove_personal_data",
            "username_or_email_for_privacy_request": email,
            "_wpnonce": _found(r'name="_wpnonce" value="(\w+)"', page),
        }
        # Without a mail to confirm it.
        self._visitor.post("/wp-admin/erase-personal-data.php", data=form)
        page = self._visitor.get("/wp-admin/erase-personal-data.php")
        erasers = int(_found(r'data-erasers-count="(\d+)"', page))
        request = {"id": _found(r'data-request-id="(\d+)"', page), "security": _found(r'data-nonce="(\w+)"', page)}
        said: list[str] = []
        for eraser in range(1, erasers + 1):
            said += self._run({"action": "wp-privacy-erase-personal-data", "eraser": str(eraser), **request})
        return said

    def _run(self, request: dict[str, str]) -> list[str]:
        said: list[str] = []
        for page in range(1, _PAGES):
            answer: dict[str, Any] = self._visitor.post("/wp-admin/admin-ajax.php", data={**request, "page": str(page)}).json()
            assert answer["success"], answer
            said += answer["data"]["messages"]
            if answer["data"]["done"]:
                return said
        message = f"{request} does not end"
        raise AssertionError(message)


def _found(pattern: str, page: httpx.Response) -> str:
    found = re.search(pattern, page.text)
    assert found, page.text
    return found[1]
