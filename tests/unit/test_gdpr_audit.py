"""A chain in which any change shows."""

from __future__ import annotations

from kit.people.signing import Signer
from services.gdpr.audit import Link, Receipt, canonical, faults, link

SIGNER = Signer(bytes(range(32)))


def chain(length: int) -> list[Link]:
    links: list[Link] = []
    for number in range(length):
        links.append(link(links[-1] if links else None, {"action": "erasure done", "request": f"r{number}"}))
    return links


def receipt(of: Link) -> Receipt:
    document = canonical({"request": "r", "audit_head": of.hash})
    return Receipt(document, SIGNER.sign(document.encode()).hex())


def is_signed(document: str, signature: str) -> bool:
    return SIGNER.is_signed(document.encode(), bytes.fromhex(signature))


def test_a_chain_that_nobody_touched_has_no_fault() -> None:
    links = chain(5)
    assert faults(links, [receipt(each) for each in links], is_signed) == []
    assert faults([], [], is_signed) == []


def test_every_changed_byte_of_an_entry_is_found() -> None:
    links = chain(3)
    middle = links[1]
    for place, byte in enumerate(middle.entry):
        changed = middle._replace(entry=middle.entry[:place] + chr(ord(byte) ^ 1) + middle.entry[place + 1 :])
        assert faults([links[0], changed, links[2]], [], is_signed) == ["entry 2 was changed"]


def test_an_entry_that_was_taken_out_or_forged_anew_is_found() -> None:
    links = chain(3)
    assert faults([links[0], links[2]], [], is_signed) == ["entry 3 does not follow entry 1"]
    forged = link(links[0], {"action": "nothing"})
    assert faults([links[0], forged, links[2]], [], is_signed) == ["entry 3 does not follow entry 2"]


def test_a_tail_that_was_cut_is_found_by_its_receipt() -> None:
    links = chain(3)
    assert faults(links[:2], [receipt(links[2])], is_signed) == ["the entry of request r is missing"]


def test_a_tail_that_was_cut_before_there_was_a_receipt_is_found_by_its_request() -> None:
    links = chain(3)
    requests = ["r0", "r1", "r2"]
    assert faults(links, [], is_signed, requests) == []
    assert faults(links[:2], [], is_signed, requests) == ["no entry mentions request r2"]


def test_a_receipt_that_was_changed_or_comes_from_another_mesh_is_found() -> None:
    links = chain(1)
    document, signature = receipt(links[0])
    assert faults(links, [Receipt(document.replace("r", "s"), signature)], is_signed) == [
        "a receipt is not signed by this mesh, or was changed"
    ]
    assert not Signer(bytes(32)).is_signed(document.encode(), bytes.fromhex(signature))
    assert len(SIGNER.public_key) == 32
