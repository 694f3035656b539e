"""The state machine of one VM as data: the phases, and the steps that lead from one to the next.

Nothing is driven by this table: a pass derives the phase from what is observed and recorded
(`removal`, `restoration`), and so does a new leader. The table lists the steps that those modules
take; `tests/unit/planning/test_vm_states.py` plans every row and compares.

Pure: standard library only, no I/O, no clock.
"""

from dataclasses import dataclass

from controller.core.planning.actions import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One situation of a VM, and what a pass does about it."""

    phase: Phase
    """The phase that the pass before reported."""
    wanted_out: bool
    """An impacting event is due, or a drain request is in force."""
    recorded: str
    """What the durable ledger holds about the VM."""
    observed: str
    """What the newest views show."""
    step: str
    """What the pass does."""
    then: Phase
    """The phase that the pass reports."""


STATES: tuple[State, ...] = (
    State(
        phase=Phase.IN_SERVICE,
        wanted_out=False,
        recorded="nothing",
        observed="in a managed pool",
        step="nothing",
        then=Phase.IN_SERVICE,
    ),
    State(
        phase=Phase.IN_SERVICE,
        wanted_out=False,
        recorded="nothing",
        observed="in no managed pool",
        step="nothing, an operator did that",
        then=Phase.UNMANAGED,
    ),
    State(
        phase=Phase.IN_SERVICE,
        wanted_out=True,
        recorded="nothing",
        observed="in a pool, by an old view",
        step="read its NICs and pools",
        then=Phase.DRAIN_DUE,
    ),
    State(
        phase=Phase.IN_SERVICE,
        wanted_out=True,
        recorded="nothing",
        observed="in a pool with no member to spare",
        step="hold it (S2)",
        then=Phase.HELD,
    ),
    State(
        phase=Phase.HELD,
        wanted_out=True,
        recorded="nothing",
        observed="in a pool, which can spare it now",
        step="record its memberships (S5)",
        then=Phase.DRAIN_DUE,
    ),
    State(
        phase=Phase.DRAIN_DUE,
        wanted_out=True,
        recorded="nothing",
        observed="in a pool, by fresh views",
        step="record its memberships (S5)",
        then=Phase.DRAIN_DUE,
    ),
    State(
        phase=Phase.DRAIN_DUE,
        wanted_out=True,
        recorded="memberships",
        observed="in a pool",
        step="send the removal",
        then=Phase.DRAINING,
    ),
    State(
        phase=Phase.DRAINING,
        wanted_out=True,
        recorded="memberships",
        observed="in no pool, by a view from before the record",
        step="read again",
        then=Phase.DRAINING,
    ),
    State(
        phase=Phase.DRAINING,
        wanted_out=True,
        recorded="memberships",
        observed="in no pool, proven",
        step="record that it is out",
        then=Phase.OUT,
    ),
    State(
        phase=Phase.DRAINING,
        wanted_out=False,
        recorded="memberships",
        observed="in every recorded pool",
        step="wait until no removal can land",
        then=Phase.RESTORING,
    ),
    State(
        phase=Phase.OUT,
        wanted_out=True,
        recorded="out",
        observed="its connections had time to end, by an old view",
        step="read its pools again (S1)",
        then=Phase.OUT,
    ),
    State(
        phase=Phase.OUT,
        wanted_out=True,
        recorded="out",
        observed="its connections had time to end",
        step="acknowledge the event (S1)",
        then=Phase.OUT,
    ),
    State(
        phase=Phase.OUT,
        wanted_out=True,
        recorded="out",
        observed="the event was acknowledged",
        step="record that",
        then=Phase.ACKNOWLEDGED,
    ),
    State(
        phase=Phase.OUT,
        wanted_out=True,
        recorded="out",
        observed="in a pool again",
        step="record its memberships again (S5)",
        then=Phase.DRAINING,
    ),
    State(
        phase=Phase.ACKNOWLEDGED,
        wanted_out=True,
        recorded="out",
        observed="the event has started",
        step="nothing",
        then=Phase.IN_MAINTENANCE,
    ),
    State(
        phase=Phase.ACKNOWLEDGED,
        wanted_out=True,
        recorded="out",
        observed="in a pool again",
        step="record its memberships again (S5)",
        then=Phase.DRAINING,
    ),
    State(
        phase=Phase.IN_MAINTENANCE,
        wanted_out=True,
        recorded="out",
        observed="in a pool again",
        step="record its memberships again (S5)",
        then=Phase.DRAINING,
    ),
    State(
        phase=Phase.IN_MAINTENANCE,
        wanted_out=False,
        recorded="out",
        observed="one clean poll without the event",
        step="wait for the second one (S6)",
        then=Phase.RESTORE_DUE,
    ),
    State(
        phase=Phase.RESTORE_DUE,
        wanted_out=False,
        recorded="out",
        observed="two clean polls, but it does not run",
        step="hold it, read its power state (S6)",
        then=Phase.HELD,
    ),
    State(
        phase=Phase.RESTORE_DUE,
        wanted_out=False,
        recorded="out",
        observed="another event is announced for later",
        step="hold it (S6)",
        then=Phase.HELD,
    ),
    State(
        phase=Phase.HELD,
        wanted_out=True,
        recorded="out",
        observed="that event is due",
        step="nothing, it is out",
        then=Phase.OUT,
    ),
    State(
        phase=Phase.HELD,
        wanted_out=False,
        recorded="out",
        observed="two clean polls, and it runs",
        step="record that it is restored from now on",
        then=Phase.RESTORING,
    ),
    State(
        phase=Phase.RESTORE_DUE,
        wanted_out=False,
        recorded="out",
        observed="two clean polls, and it runs",
        step="record that it is restored from now on",
        then=Phase.RESTORING,
    ),
    State(
        phase=Phase.RESTORING,
        wanted_out=False,
        recorded="restoring",
        observed="in no pool",
        step="send the restore (S3)",
        then=Phase.RESTORING,
    ),
    State(
        phase=Phase.RESTORING,
        wanted_out=False,
        recorded="restoring",
        observed="in every recorded pool, proven",
        step="record that it is restored",
        then=Phase.RESTORING,
    ),
    State(
        phase=Phase.RESTORING,
        wanted_out=True,
        recorded="restored",
        observed="in a pool",
        step="record its memberships again (S5)",
        then=Phase.DRAIN_DUE,
    ),
    State(
        phase=Phase.RESTORING,
        wanted_out=False,
        recorded="restored",
        observed="the probes had time to find it",
        step="forget the entry",
        then=Phase.IN_SERVICE,
    ),
)


def table() -> str:
    """Return the states as a Markdown table, for the documentation."""
    rows = [("Phase", "Wanted out", "Recorded", "Observed", "Step", "Next phase")]
    rows += [
        (
            f"`{each.phase.value}`",
            "yes" if each.wanted_out else "no",
            each.recorded,
            each.observed,
            each.step,
            f"`{each.then.value}`",
        )
        for each in STATES
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = tuple("-" * width for width in widths)
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (rows[0], rule, *rows[1:])
    )


def arrows() -> str:
    """Return the changes of phase as text, for the docstring of the planner."""
    return "\n".join(
        f"    {source.value:>14} --> {then.value:<14}  {observed}"
        for (source, then), situations in changes().items()
        for observed in situations
    )


def changes() -> dict[tuple[Phase, Phase], list[str]]:
    """Return what is observed at each change of phase."""
    found: dict[tuple[Phase, Phase], list[str]] = {}
    for each in STATES:
        if each.then is not each.phase:
            found.setdefault((each.phase, each.then), []).append(each.observed)
    return found
