"""Events and incidents as tables: for a spreadsheet, and for the page of a post-mortem."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pgbreaker.core.entry import Entry
from pgbreaker.core.incident import Incident
from pgbreaker.core.units import lasting
from pgbreaker.core.wall import moment

# The wide ones, too: spreadsheets of East Asia take them for the same.
_FORMULA: Final = (*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20")
# What means something within a line of Markdown. What does at its beginning never stands
# there: before all that anybody said is a bar, or the name of a breaker.
_MARKUP: Final = re.compile(r"([\\`*_\[\]|~#!$^])")
_HTML: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


@dataclass(frozen=True, slots=True)
class Table:
    """Some rows.

    Attributes:
        title: What it is, for people.
        head: Names of the columns, for programs.
        rows: Cells as text.
        notes: What people wrote besides.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def of_events(entries: Iterable[Entry]) -> Table:
    """What happened, a row each."""
    head = ("id", "time", "kind", "target", "breaker", "author", "text")
    rows = [
        (
            str(entry.id),
            moment(entry.at),
            entry.kind.value,
            entry.target or "",
            entry.breaker or "",
            entry.author or "",
            entry.text,
        )
        for entry in entries
    ]
    return Table("Events", head, rows)


def of_incidents(incidents: Sequence[Incident], since: float, now: float) -> Table:
    """Incidents, a row each, and what people wrote to them."""
    head = (
        *("id", "breaker", "began", "ended", "seconds", "lasted"),
        *("cause", "sqlstate", "reason", "notes"),
    )
    rows = [
        (
            str(one.id),
            one.breaker,
            moment(one.began),
            "" if one.ended is None else moment(one.ended),
            f"{one.seconds(now):.3f}",
            lasting(one.seconds(now)) + (" so far" if one.ended is None else ""),
            one.cause,
            one.sqlstate or "",
            one.reason,
            "; ".join(_note(note) for note in one.notes),
        )
        for one in incidents
    ]
    notes = [
        f"{one.breaker}, {moment(note.at)}: {_note(note)}"
        for one in incidents
        for note in one.notes
    ]
    return Table(f"Incidents since {moment(since)}", head, rows, notes)


def _note(note: Entry) -> str:
    return f"{note.text} ({note.author})"


def as_csv(table: Table) -> str:
    """Write it as RFC 4180 has it, so that no cell is a formula to whoever opens it."""
    told = io.StringIO()
    writer = csv.writer(told, lineterminator="\r\n")
    writer.writerow(table.head)
    writer.writerows([_defused(cell) for cell in row] for row in table.rows)
    return told.getvalue()


def _defused(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def as_markdown(table: Table) -> str:
    """Write it as GitHub's Markdown has it; what anybody said is text, and no markup."""
    lines = [f"# {_escaped(table.title)}", ""]
    if table.rows:
        lines.append(_row([name.replace("_", " ") for name in table.head]))
        lines.append(_row(["---"] * len(table.head)))
        lines += [_row([_escaped(cell) for cell in row]) for row in table.rows]
    else:
        lines.append("There were none.")
    if table.notes:
        lines += ["", "## Notes", ""]
        lines += [f"- {_escaped(note)}" for note in table.notes]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    line = " ".join(text.split())
    return _MARKUP.sub(r"\\\1", line).translate(_HTML)
