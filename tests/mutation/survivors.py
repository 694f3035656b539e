"""The table of mutants that no test notices, each with the reason why that is well.

[[survivor]]
where = "planning.planner.plan"   # module below controller.core, and scope
before = "the changed line"
after = ["the line as changed"]   # one or several
reason = "equivalent: ..."        # or: not worth a test: ...
"""

import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("survivors.toml")
Name = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Table:
    """Reasons by the name of the mutant."""

    reasons: dict[Name, str]

    def explains(self, name: Name) -> bool:
        """Tell whether this mutant may survive."""
        return name in self.reasons

    def stale(self, modules: tuple[str, ...], survived: set[Name]) -> list[Name]:
        """Return the names, in these modules, of mutants that are noticed or do not exist."""
        return sorted(
            name
            for name in self.reasons
            if f"{name[0]}.".startswith(tuple(f"{module}." for module in modules))
            and name not in survived
        )


def read(path: Path = TABLE) -> Table:
    """Return the committed table.

    Raises:
        ValueError: an entry is there twice, or gives no reason.
    """
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("survivor", [])
    reasons: dict[Name, str] = {}
    names: Counter[Name] = Counter()
    for entry in entries:
        if not entry["reason"].startswith(("equivalent: ", "not worth a test: ")):
            raise ValueError(f"{entry['where']}: {entry['before']}: what kind of reason is that?")
        for after in entry["after"]:
            name = (entry["where"], entry["before"], after)
            names[name] += 1
            reasons[name] = entry["reason"]
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ValueError(f"explained twice: {twice}")
    return Table(reasons)
