"""What programs send where an id is missing is nobody's, everywhere alike."""

from __future__ import annotations

import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st
from pmp.ingestion.v1.ingestion_pb2 import TrackEventsRequest
from pmp.journeys.v1.journeys_pb2 import TrackConversionRequest
from pmp.purchases.v1.purchases_pb2 import ListPurchasesRequest

from kit.boundary.nobody import forget_nobody, names_nobody
from kit.people.identifiers import identifier_of

NOBODY = [
    *("null", "NULL", "undefined", "None", "0", "000", "", "-", "_", "Guest", "nan", "NaN", "nil", "anonymous", "[object Object]"),
    *(" ", "\t", " null ", "00000000-0000-0000-0000-000000000000", "0.0", "(not set)"),
]
SOMEBODY = ["s1", "nullable", "42", "9f8e7d6c-0000", "tester", "00000000-0000-0000-0000-000000000001", "guesthouse", "o-0"]


@pytest.mark.parametrize("value", NOBODY)
def test_what_programs_send_for_nothing_is_nobodys(value: str) -> None:
    assert names_nobody(value)
    assert identifier_of(user_id=value, session_id=value, anonymous_id=value) == ""
    assert identifier_of(user_id=value, email_hash=b"\1") == "email:01"


@pytest.mark.parametrize("value", SOMEBODY)
def test_an_id_is_a_persons(value: str) -> None:
    assert not names_nobody(value)
    assert identifier_of(user_id=value).partition(":")[2] == value


@given(st.text(alphabet="0._:- \t", max_size=40))
def test_zeros_and_marks_name_nobody(value: str) -> None:
    assert names_nobody(value)


def test_the_ids_of_nobody_are_cleared_in_the_records_of_a_request() -> None:
    events = [{"id": "e1", "user_id": "0", "session_id": "s1"}, {"user_id": "42", "session_id": "undefined"}]
    request = ParseDict({"events": events}, TrackEventsRequest())
    forget_nobody(request)
    assert request == ParseDict({"events": [{"id": "e1", "session_id": "s1"}, {"user_id": "42"}]}, TrackEventsRequest())
    asked = ListPurchasesRequest(user_id="0")
    forget_nobody(asked)
    assert asked.user_id == "0", "nobody's are not everybody's"
    conversion = ParseDict({"conversion": {"user_id": "[object Object]", "session_id": "NaN", "source": "null"}}, TrackConversionRequest())
    forget_nobody(conversion)
    assert conversion == ParseDict({"conversion": {"source": "null"}}, TrackConversionRequest())
