"""What a bench measured, against what it should be, and the table of it."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

NOT_DONE = math.inf
"""The sample of a run that did not get there in time."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row: samples of one quantity, and the most it may be."""

    group: str
    name: str
    samples: Sequence[float]
    unit: str = ""
    target: float | None = None
    """The most that is good; None for a figure that only informs."""
    worst: bool = False
    """Judge the largest sample instead of the median."""
    note: str = ""
    extra: dict[str, object] = field(default_factory=dict[str, object])

    @property
    def value(self) -> float:
        """The median or, where that is what matters, the worst sample."""
        if not self.samples:
            return NOT_DONE
        return max(self.samples) if self.worst else statistics.median(self.samples)

    @property
    def verdict(self) -> str:
        """`ok`, `short`, or nothing where there is no target."""
        if self.target is None:
            return ""
        return "ok" if self.value <= self.target else "short"

    def as_json(self) -> dict[str, object]:
        """Return the figure for `--json`; a run that did not end is null."""
        return {
            "group": self.group,
            "name": self.name,
            "unit": self.unit,
            "value": _json(self.value),
            "samples": [_json(sample) for sample in self.samples],
            "judged": "worst" if self.worst else "median",
            "target": self.target,
            "verdict": self.verdict,
            "note": self.note,
            **self.extra,
        }


def show(figures: Iterable[Figure], console: Console) -> None:
    """Print the table."""
    table = Table("group", "figure", box=None, pad_edge=False, header_style="bold")
    for name in ("measured", "range", "target"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("note", overflow="fold")
    for figure in figures:
        target = "" if figure.target is None else f"<= {_spell(figure.target)} {figure.unit}"
        low, high = (min(figure.samples), max(figure.samples)) if figure.samples else (0, 0)
        spread = f"{_spell(low)} - {_spell(high)}" if len(figure.samples) > 1 else ""
        measured = f"{_spell(figure.value)} {figure.unit}".rstrip()
        table.add_row(
            figure.group,
            figure.name,
            ("worst " if figure.worst else "") + measured,
            spread,
            target.rstrip(),
            figure.verdict,
            figure.note,
        )
    console.print(table)


def _spell(value: float) -> str:
    if not math.isfinite(value):
        return "not done"
    return f"{value:.0f}" if value == int(value) and value < 1e6 else f"{value:.2f}"


def _json(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
