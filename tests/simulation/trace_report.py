"""A history short enough to read: what was set up, what broke which law, and what led there."""

from collections.abc import Sequence

from controller.simulator.world.history import Change
from tests.laws.judge import Violation
from tests.simulation.runner import EPOCH, Played

MOST_LINES = 40
WIDTH = 150
BEFORE_S = 60.0
ABOUT_ONE = frozenset({"request", "member_in", "member_out", "write", "fault"})
"""Entries that matter only if they are about what the broken law is about."""
DULL = frozenset({"sent", "arrived", "lease_renew", "act_over", "log"})


def tell(played: Played, broken: Sequence[Violation]) -> list[str]:
    """Return at most forty lines."""
    scenario = played.scenario
    lines = [
        f"seed {scenario.seed}: {scenario.vms} VMs, {scenario.nics_per_vm} NICs each, pools "
        f"{', '.join((*scenario.pools, *scenario.ip_pools))}, calm from {scenario.calm_at_s:.0f} s"
    ]
    storms = [f"  {storm.from_s:7.2f} {storm}" for storm in scenario.storms]
    lines += _short(storms, 5)
    if not broken:
        lines += ["all laws were kept"]
        return lines + _chosen(played.history, [], MOST_LINES - len(lines))
    first = broken[0]
    lines += [f"broken: {each}" for each in broken[:3]]
    if len(broken) > 3:
        lines.append(f"... and {len(broken) - 3} times more")
    upto = played.history[: first.number + 1]
    return lines + _chosen(upto, [first], MOST_LINES - len(lines))


def _short(lines: list[str], most: int) -> list[str]:
    return lines if len(lines) <= most else [*lines[: most - 1], f"  ... {len(lines)} storms"]


def _chosen(history: Sequence[Change], broken: Sequence[Violation], most: int) -> list[str]:
    """Return the last lines that have to do with it: writes, moves, events, refusals."""
    words = {word for each in broken for word in each.what.split() if word.startswith("web-")}
    words |= {each.entry.subject for each in broken}
    end = broken[0].at if broken else history[-1].at
    kept: list[str] = []
    for change in history:
        if change.kind in DULL and not any(change is each.entry for each in broken):
            continue
        if change.kind == "request" and not _tells(change):
            continue
        if change.at < end - BEFORE_S and not change.kind.startswith(("event_", "vm_", "act")):
            continue
        line = _line(change)
        named = any(word.casefold() in line.casefold() for word in words)
        if named or not words or change.kind not in ABOUT_ONE:
            kept.append(line)
    return kept[-most:]


def _tells(change: Change) -> bool:
    """Tell whether a request did anything, or failed to."""
    detail = change.detail
    if detail["method"] in ("PUT", "POST") and detail["query"] not in ("renew", "lease"):
        return True
    return bool(int(str(detail["status"])) >= 400 or detail["delivery"] != "normal")


def _line(change: Change) -> str:
    detail = {
        name: value
        for name, value in change.detail.items()
        if value not in ("", None) and name not in ("body", "lease_id", "etag", "operation", "nic")
    }
    text = " ".join(f"{name}={_brief(value)}" for name, value in detail.items())
    subject = change.subject.rsplit("/", 1)[-1][-24:]
    return f"{change.at - EPOCH:9.2f} {change.kind} {subject} {text}"[:WIDTH]


def _brief(value: object) -> str:
    return str(value).rsplit("/", 1)[-1][:60]
