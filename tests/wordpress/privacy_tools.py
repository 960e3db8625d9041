"""Tools > Export and Erase Personal Data of a site, as its administrator's browser works them: one part after the other, page by page."""

from __future__ import annotations

import io
import json
import re
import zipfile
from typing import Any, Final

import httpx

_PAGES: Final = 100

Json = dict[str, Any]


class PrivacyTools:
    """An administrator of a site who has logged in.

    Args:
        visitor: a visitor of the site; becomes the administrator.
    """

    def __init__(self, visitor: httpx.Client) -> None:
        self._visitor = visitor
        visitor.get("/wp-login.php")  # asks whether cookies are kept
        visitor.post("/wp-login.php", data={"log": "admin", "pwd": "admin", "testcookie": "1"})

    def erase(self, email: str) -> list[str]:
        """Erases a person; returns the messages for the administrator."""
        return [message for page in self._work("remove", "erase", "eraser", email) for message in page["messages"]]

    def export(self, email: str) -> Json:
        """The contents of the exported file: items by group."""
        *_, last = self._work("export", "export", "exporter", email)
        file = zipfile.ZipFile(io.BytesIO(self._visitor.get(last["url"]).content))
        [(_, groups)] = json.loads(file.read("export.json")).items()
        return {name: list(group["items"].values()) for name, group in groups.items()}

    def _work(self, kind: str, verb: str, part: str, email: str) -> list[Json]:
        """Asks for it, without a mail to confirm it, and works all its pages; answers what each said."""
        address = f"/wp-admin/{verb}-personal-data.php"
        asked = {
            "action": f"add_{kind}_personal_data_request",
            "type_of_action": f"{kind}_personal_data",
            "username_or_email_for_privacy_request": email,
            "_wpnonce": _found(r'name="_wpnonce" value="(\w+)"', self._visitor.get(address)),
        }
        self._visitor.post(address, data=asked)
        listed = self._visitor.get(address)
        request = {"id": _found(r'data-request-id="(\d+)"', listed), "security": _found(r'data-nonce="(\w+)"', listed)}
        said: list[Json] = []
        for number in range(1, int(_found(rf'data-{part}s-count="(\d+)"', listed)) + 1):
            said += self._pages({"action": f"wp-privacy-{verb}-personal-data", part: str(number), **request})
        return said

    def _pages(self, call: dict[str, str]) -> list[Json]:
        said: list[Json] = []
        for page in range(1, _PAGES):
            answer: Json = self._visitor.post("/wp-admin/admin-ajax.php", data={**call, "page": str(page)}).json()
            assert answer["success"], answer
            said.append(answer["data"])
            if said[-1]["done"]:
                return said
        message = f"{call} does not end"
        raise AssertionError(message)


def _found(pattern: str, page: httpx.Response) -> str:
    found = re.search(pattern, page.text)
    assert found, page.text
    return found[1]
