"""One table, several renderers. A table knows nothing about metrics; cells are numbers with a format."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

EMPTY = "–"
Value = float | int | str | None


@dataclass(frozen=True)
class Column:
    """A column: its heading and how its numbers are written (``format`` specification)."""

    title: str
    format: str = ""
    unit: str = ""

    @property
    def heading(self) -> str:
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def show(self, value: Value) -> str:
        if value is None:
            return EMPTY
        return value if isinstance(value, str) else format(value, self.format)


@dataclass
class Table:
    """Rows of values under columns.

    Attributes:
        footers: what a reader must know: counts, failures, protocol, run.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: list[Sequence[Value]] = field(default_factory=list)
    footers: list[str] = field(default_factory=list)


def render_markdown(table: Table) -> str:
    cells = [[column.heading for column in table.columns]]
    cells += [[column.show(value) for column, value in zip(table.columns, row, strict=True)] for row in table.rows]
    widths = [max(len(row[index]) for row in cells) for index in range(len(table.columns))]
    numeric = [any(isinstance(row[index], int | float) for row in table.rows) for index in range(len(table.columns))]

    def line(row: Sequence[str]) -> str:
        padded = [text.rjust(width) if right else text.ljust(width) for text, width, right in zip(row, widths, numeric)]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (width + 1) + (":" if right else "-") for width, right in zip(widths, numeric)) + "|"
    body = [f"**{table.title}**", "", line(cells[0]), rule, *map(line, cells[1:])]
    if table.footers:
        body += ["", *(f"{footer}  " for footer in table.footers)]
    return "\n".join(body).rstrip() + "\n"


def render_csv(table: Table) -> str:
    """Unrounded values; an empty field where there is no value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.heading for column in table.columns])
    writer.writerows([["" if value is None else value for value in row] for row in table.rows])
    return out.getvalue()


RENDERERS = {"md": render_markdown, "csv": render_csv}
