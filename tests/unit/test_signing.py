"""Signatures of the mesh."""

from __future__ import annotations

from kit.people.signing import Signer

KEY = bytes(range(32))
SIGNATURE = bytes.fromhex(
    "161873c3354aa1a5faa6cc7b2c65c8f302f0d21ddda394badd52f3cdf4ea54a659857fe2522e008884cdce2a91560d88539316e82f12092a6d659e68a2580403"
)


def test_what_older_versions_signed_is_still_verified() -> None:
    signer = Signer(KEY)
    assert signer.is_signed(b"data", SIGNATURE)
    assert signer.sign(b"data") == SIGNATURE
    assert signer.public_key.hex() == "0616fb4c16dcf3d1e9347318c221058576da31f1894cd83a1543d8a618d93d00"


def test_other_data_and_other_keys_are_not_signed() -> None:
    assert not Signer(KEY).is_signed(b"date", SIGNATURE)
    assert not Signer(bytes(32)).is_signed(b"data", SIGNATURE)
