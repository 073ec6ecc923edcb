"""Pure parts: medians, ratios, verdicts, and the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

__all__ = ["Line", "as_json", "figure", "median", "percentile", "table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One figure. `theirs` is a peer's figure of the same run, or a limit that a document set; None: the figure alone.

    `bar`: what `ours / theirs` must be, at least, or at most where `less_is_better`; None: nothing was asked of it.
    """

    part: str
    what: str
    ours: float
    unit: str
    beside: str = ""
    theirs: float | None = None
    bar: float | None = None
    less_is_better: bool = False
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return self.ours / self.theirs if self.theirs else None

    @property
    def is_met(self) -> bool | None:
        """None where there is nothing to judge."""
        if self.bar is None or self.ratio is None:
            return None
        return self.ratio <= self.bar if self.less_is_better else self.ratio >= self.bar

    @property
    def asked(self) -> str:
        if self.bar is None:
            return ""
        return f"{'<=' if self.less_is_better else '>='} {self.bar:g}"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not below `share` (0 to 1) of them. Raises ValueError without values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def figure(value: float | None) -> str:
    """Three digits that count, and thousands apart: 12,300 / 4.57 / 0.013."""
    if value is None:
        return "-"
    if value == 0 or math.isinf(value) or math.isnan(value):
        return f"{value:g}"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{round(value, digits):,.{max(0, digits)}f}"


_HEADS = ("what", "ours", "unit", "beside", "theirs", "ratio", "asked", "")


def table(lines: Sequence[Line]) -> str:
    """Columns of text, a heading for each part."""
    rows = [(line.part, _cells(line)) for line in lines]
    widths = [max(len(row[at]) for row in [_HEADS, *(cells for _, cells in rows)]) for at in range(len(_HEADS))]
    shown, part = [_aligned(_HEADS, widths)], ""
    for line, (of_part, cells) in zip(lines, rows, strict=True):
        if of_part != part:
            part = of_part
            shown.append(f"-- {part}")
        shown.append(_aligned(cells, widths) + (f"  ({line.note})" if line.note else ""))
    return "\n".join(each.rstrip() for each in shown)


def _cells(line: Line) -> tuple[str, ...]:
    verdict = {None: "", True: "met", False: "MISSED"}[line.is_met]
    ratio = "-" if line.ratio is None else f"{line.ratio:.2f}"
    return (line.what, figure(line.ours), line.unit, line.beside, figure(line.theirs), ratio, line.asked, verdict)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    right = (1, 4, 5)
    return "  ".join(
        cell.rjust(width) if at in right else cell.ljust(width)
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )


def as_json(line: Line) -> dict[str, Any]:
    """A line for machines: figures unrounded."""
    return {
        "part": line.part,
        "what": line.what,
        "ours": line.ours,
        "unit": line.unit,
        "beside": line.beside,
        "theirs": line.theirs,
        "ratio": line.ratio,
        "bar": line.bar,
        "less_is_better": line.less_is_better,
        "met": line.is_met,
        "note": line.note,
    }
