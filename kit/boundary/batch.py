"""Rpcs that do for each record of a batch what another rpc does for a single one, with a verdict for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor
from pmp.options.v1 import options_pb2

from kit.boundary.caller import bind_log_fields, remark
from kit.boundary.items import NOTHING, Items, ItemsReader
from kit.boundary.nobody import NOBODY, forget_nobody
from kit.errors import InvalidRequest, MeshError, Violation
from kit.json_body.notes import Notes
from kit.scrubbing.scrubber import Scrubber
from kit.settings import Settings

_Checked = TypeVar("_Checked")
_Result = TypeVar("_Result")


class BatchReader:
    """Reads the requests of one rpc, and does with each record what the boundary does with the request of a single one.

    Args:
        request: the type of the requests, whose rpc applies the rules itself.
        name: the field of the records.
        single: the field of the record in the request of a single one.
    """

    def __init__(self, settings: Settings, request: Descriptor, name: str, single: str) -> None:
        self._name = name
        self._prefix = f"{single}."
        self._items = ItemsReader(request, name, settings.site_timezone)
        self._scrubber = Scrubber(settings.site_url_parameters)

    def read(self, request: Any) -> Batch:
        """Returns the records of a request.

        Raises:
            InvalidRequest: the request as a whole breaks rules.
        """
        # As in the boundary: an id of nobody satisfies the rule that requires an id.
        items = self._items.read(request, NOBODY)
        forget_nobody(request)
        self._scrubber.scrub(request)
        return Batch(getattr(request, self._name), items, self._prefix)


class Batch:
    """The records of one request.

    Args:
        records: in the order of the request.
        items: what is remarkable about them.
        prefix: of paths in the request of a single record.
    """

    def __init__(self, records: Sequence[Any], items: Items, prefix: str) -> None:
        self._records = records
        self._items = items
        self._prefix = prefix
        self._refused: dict[int, MeshError] = {}

    def admit(self, check: Callable[[Any], _Checked]) -> list[_Checked]:
        """Checks the records that keep the rules of their proto.

        Args:
            check: returns a record as it is to be done; raises InvalidRequest to refuse it.

        Returns:
            The records that are admitted, in order.
        """
        admitted: list[_Checked] = []
        for number, record in enumerate(self._records):
            if broken := self._notes(number).broken(self._items.broken.get(number, ())):
                self._refused[number] = InvalidRequest(broken)
                continue
            try:
                admitted.append(check(record))
            except InvalidRequest as refusal:
                self._refused[number] = refusal
        return admitted

    def answer(self, response: Any, done: Sequence[_Result | MeshError], fields: Callable[[_Result], dict[str, Any]]) -> None:
        """Fills in the response, with a verdict for each record.

        Args:
            response: has `results` and their totals.
            done: the results of the records that were admitted, or why they were refused after all.
            fields: the fields of a verdict beside `success`.
        """
        outcomes = iter(done)
        for number in range(len(self._records)):
            outcome = self._refused.get(number) or next(outcomes)
            if isinstance(outcome, MeshError):
                verdict = response.results.add(violations=self._violations(outcome))
            else:
                verdict = response.results.add(success=True, **fields(outcome))
                response.accepted += 1
            if (notes := self._notes(number)) is not NOTHING:
                remark(notes, verdict)
        response.ignored_fields.extend(self._items.ignored)
        response.rejected = len(self._records) - response.accepted
        response.success = not response.rejected
        bind_log_fields(accepted=response.accepted, rejected=response.rejected)

    def _notes(self, number: int) -> Notes:
        return self._items.notes.get(number, NOTHING)

    def _violations(self, refusal: MeshError) -> list[options_pb2.Violation]:
        violations = refusal.violations if isinstance(refusal, InvalidRequest) else [Violation("", str(refusal))]
        return [options_pb2.Violation(field=each.field.removeprefix(self._prefix), description=each.description) for each in violations]
