"""The personal table of conflicts. An erasure deletes them."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from kit.people.subjects.personal_tables import Ages, IdentifierKind, PersonalTable, nothing
from services.destinations.conflicts.models import ConflictRow

VALUE_CONTEXT: Final = "conflict"
"""Context under which both values are sealed."""

CONFLICTS: Final = PersonalTable(
    ConflictRow,
    section="wordpress_data",
    why="what the mesh and the shop's site had of a field that both had changed, and whose value was kept",
    kept="for a year, or as long as `PMP_SITE_RETENTION_TABLES` says; not longer than until the person is erased",
    identifiers={"subject": IdentifierKind.SUBJECT},
    personal=nothing("site_value", "mesh_value"),
    sealed={"site_value": VALUE_CONTEXT, "mesh_value": VALUE_CONTEXT},
    deletes_rows=True,
    ages=Ages("decided_at"),
)
KEPT: Final = {ConflictRow.__tablename__: timedelta(days=365)}
"""The retention period."""
