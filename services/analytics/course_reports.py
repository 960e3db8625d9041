"""The reports on courses and on how far visitors got."""

from __future__ import annotations

from typing import Final

from services.analytics.columns import TEXT, Column, Report
from services.analytics.counts import COURSE
from services.analytics.course_figures import COURSE_FIGURES
from services.analytics.figures import RATIO
from services.analytics.funnel import STEPS

COURSE_REPORTS: Final = (
    Report(
        "courses",
        {COURSE: "The course that events and lines of orders name."},
        [
            Column("title", TEXT, "Its title, as the last enrolment in it or the last order of it alone states it."),
            *(Column(each.key, each.unit, each.text) for each in COURSE_FIGURES),
        ],
        "-net_revenue",
    ),
    Report(
        "funnel",
        {"step": " ".join(f"`{name}`: {definition}" for name, definition in STEPS.items())},
        [
            Column("number", "step", "Its place in the order of steps, from 1."),
            Column("people", "visitors", "Persons who reached the step in the period; each counts once."),
            Column("drop_off", "visitors", "Persons who reached the step before and not this one."),
            Column("share", RATIO, "Persons who reached the step, of those who reached the step before."),
            Column("share_of_visitors", RATIO, "Persons who reached the step, of all visitors."),
        ],
        "number",
    ),
)
