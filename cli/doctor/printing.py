"""Prints a report."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from cli.doctor.findings import Checked, Report


def print_report(console: Console, report: Report) -> None:
    """Prints a line for each check, and below it what it found and what to do."""
    width = max(len(each.check) for each in report.checks)
    for each in report.checks:
        console.print(Text.assemble(f"{each.check:<{width}}  ", _state(each)), soft_wrap=True)
        for finding in each.findings:
            console.print(Text.assemble("  ", (finding.what, "red")), soft_wrap=True)
            console.print(f"    {finding.action}", highlight=False, markup=False, soft_wrap=True)
    count = sum(len(each.findings) for each in report.checks)
    console.print("[green]all is well[/]" if report.is_well else f"[red]{count} findings[/]")


def _state(checked: Checked) -> tuple[str, str]:
    if checked.findings:
        return "not well", "red"
    return (f"left out: {checked.left_out}", "yellow") if checked.left_out else ("well", "green")
