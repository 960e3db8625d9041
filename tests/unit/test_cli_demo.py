from __future__ import annotations

from cli.books import Account, Books
from cli.clickstream import Outcome
from cli.demo import TOO_OLD, Tally, differences


def test_a_mesh_with_a_short_retention_explains_how_to_accept_the_clickstream() -> None:
    nothing = Account(received=0, stored=0, duplicate=0, rejected=0, dead_lettered=0, suppressed=0, recovered=0, pending=0, missing=0)
    refused = "400 timestamp is older than the site's retention (PMP_SITE_RETENTION: 1095 days)"
    books, expected = Books(total=nothing, hours=[], balanced=True, lost=[]), Outcome(accepted=1, rejected=0, distinct=1)
    assert differences(Tally(rejected=1, surprises=[refused]), nothing, books, expected) == [TOO_OLD]
