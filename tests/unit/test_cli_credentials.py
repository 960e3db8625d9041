from __future__ import annotations

import json
import shlex
from pathlib import Path

import jwt
import pytest
from pmp_mesh_client.tokens import ISSUER, Scope, mint

from cli.credentials import Credentials, Format, checked_user, credentials
from cli.errors import CommandFailed
from cli.folder import DataFolder

SECRET = "a secret that is long enough for HS256"
ELSEWHERE = {
    "PMP_URL": "https://mesh.example/",
    "PMP_API_KEYS": '["server key"]',
    "PMP_BROWSER_API_KEYS": '["browser key"]',
    "PMP_JWT_SECRETS": json.dumps([SECRET, "an older one"]),
}


def claims(token: str) -> dict[str, object]:
    return jwt.decode(token, SECRET, algorithms=["HS256"], issuer=ISSUER, options={"verify_exp": False, "verify_iat": False})


def test_a_token_is_valid_for_its_user_for_an_hour() -> None:
    now = 1_800_000_000
    assert claims(mint(SECRET, Scope.SITE, "42", now)) == {"iss": ISSUER, "scope": "site", "id": "42", "iat": now, "exp": now + 3600}


def test_a_token_without_a_user_names_none() -> None:
    assert "id" not in claims(mint(SECRET, Scope.READ, None, 1_800_000_000))


def test_exports_survive_the_shell() -> None:
    text = Credentials("http://h", "a'b $c", "t").render(Format.ENV)
    assert shlex.split(text) == ["export", "PMP_URL=http://h", "export", "PMP_API_KEY=a'b $c", "export", "PMP_TOKEN=t"]


def test_headers_are_lines_for_curl() -> None:
    assert Credentials("http://h", "key", "token").render(Format.HEADERS) == "x-api-key: key\nauthorization: Bearer token"


def test_json_has_what_a_program_needs() -> None:
    assert json.loads(Credentials("http://h", "key", "token").render(Format.JSON)) == {
        "url": "http://h",
        "api_key": "key",
        "token": "token",
    }


def test_a_mesh_elsewhere_is_named_by_the_environment(tmp_path: Path) -> None:
    made = credentials(DataFolder(tmp_path), Scope.SITE, "7", ELSEWHERE)
    assert (made.url, made.api_key, claims(made.token)["id"]) == ("https://mesh.example", "server key", "7")


def test_a_browser_has_its_own_key(tmp_path: Path) -> None:
    assert credentials(DataFolder(tmp_path), Scope.TRACK, None, ELSEWHERE).api_key == "browser key"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"PMP_URL": ""}, "PMP_URL is not"),
        ({"PMP_API_KEYS": "server key"}, "PMP_API_KEYS must be a JSON list"),
        ({"PMP_JWT_SECRETS": "[]"}, "PMP_JWT_SECRETS must be a JSON list"),
    ],
)
def test_an_incomplete_environment_is_reported(tmp_path: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(CommandFailed, match=message):
        credentials(DataFolder(tmp_path), Scope.SITE, None, ELSEWHERE | change)


def test_without_a_mesh_the_way_to_one_is_explained(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="run `pmp up` first"):
        credentials(DataFolder(tmp_path), Scope.SITE, None, {})


@pytest.mark.parametrize("user", ["", "with space", "x" * 256, "a\nb"])
def test_what_can_be_no_user_is_refused(user: str) -> None:
    with pytest.raises(CommandFailed, match="a user is"):
        checked_user(user)
