"""Which VMs are truly closed in a history, and what their agents knew when they closed or opened.

Fed by `Replay` with the changes of one set. An agent is judged by what storage replied to it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from controller.simulator.world.bodies import Json
from controller.simulator.world.history import Change
from tests.laws.ledger_document import is_ledger, is_ledger_write, seconds_of

REQUEST_S = 4.0
"""An agent waits for a reply of storage at most this long; a later one shows it nothing."""
REPORTED_S = 30.0
"""An agent decides on a report of up to 20 s ago, read up to 10 s ago."""
VIEWS = 2
"""How many of the newest ledgers that an agent read it may act on."""


@dataclass(slots=True, kw_only=True)
class ClosedVm:
    """A VM that takes no new work."""

    since: float
    quiet_at: float = math.inf
    """When its last connection ends."""
    noticed_at: float = math.inf
    """When its responder has refused as many probes as every rule needs."""
    alone: bool = False
    """Whether no entry that its agent knew named it."""
    overdue: bool = False
    """Whether law S9 has found it closed for too long."""


class ClosedVms:
    """The closed VMs of a set, by folded name."""

    def __init__(self, ledger: str, lease_s: float) -> None:
        self._ledger, self._lease_s = ledger, lease_s
        self.closed: dict[str, ClosedVm] = {}
        self.opened_alone: dict[str, tuple[float, ClosedVm]] = {}
        """The VMs that a reboot or the end of their agent's service opened: when, and as what they
        were closed."""
        self.views: dict[str, list[Json]] = {}
        """The newest ledgers that the agent of a VM has read or written."""
        self.unnamed_since: dict[str, float] = {}
        """Since when no ledger that the agent of a VM acts on names the VM."""
        self.read_at: dict[str, float] = {}
        """When a request left that showed the ledger to the agent of a VM."""
        self._sent_at: float | None = None
        self.led_until: dict[str, float] = {}
        self.awake_since: dict[str, float] = {}
        """Since when agents run, without those that are dead or frozen."""
        self.health_read_at = -math.inf
        self._readable = True
        """Whether the blob holds a ledger: other content is no news of it."""

    def named(self, vm: str) -> bool:
        """Return whether an entry that the agent of a VM can know asks for it to be closed."""
        return any(names(ledger, vm) for ledger in self.views.get(vm, ()))

    def known_closed(self, at: float) -> set[str]:
        """Return the VMs that are closed as far as an agent can know.

        A reboot, or the end of its agent's service, opens a VM at once; the others learn it later.
        """
        opened = {vm for vm, (since, _) in self.opened_alone.items() if since >= at - REPORTED_S}
        return {*self.closed, *opened}

    def news_at(self, vm: str) -> float:
        """Return when the agent of a VM last had news from storage."""
        return max(self.read_at.get(vm, -math.inf), self.led_until.get(vm, -math.inf))

    def follow(self, change: Change, ledger: Json) -> None:
        """Take one change in; `ledger` is the stored one after it."""
        vm, detail = change.subject.casefold(), change.detail
        match change.kind:
            case "application_closed":
                self.closed[vm] = ClosedVm(since=change.at, alone=not self.named(vm))
            case "machine_closed" if vm in self.closed:
                self.closed[vm].quiet_at = float(str(detail["quiet_at"]))
                self.closed[vm].noticed_at = float(str(detail["noticed_at"]))
            case "application_opened":
                state = self.closed.pop(vm, None)
                if state is not None and vm not in self.awake_since:
                    self.opened_alone[vm] = change.at, state
            case "vm_down" if vm in self.closed and detail.get("state") != "frozen":
                self.opened_alone[vm] = change.at, self.closed.pop(vm)
            case "agent_started" | "agent_thawed":
                self.awake_since[vm] = change.at
                if change.kind == "agent_started":
                    self.views.pop(vm, None)
                    self.unnamed_since.pop(vm, None)
            case "agent_killed" | "agent_ended" | "agent_frozen":
                self.awake_since.pop(vm, None)
            case "lease_acquire" | "lease_renew" if change.subject == self._ledger:
                holder = str(detail["by"]).casefold()
                self.led_until[holder] = change.at + self._lease_s
                self._saw(holder, ledger, change.at)
            case "blob_replaced" if change.subject == self._ledger:
                self._readable = is_ledger(str(detail["body"]))
            case "blob_written" if is_ledger_write(change):
                self._readable = True
                self._saw(str(detail.get("by", "")).casefold(), ledger, change.at)
            case "arrived":
                self._sent_at = float(str(detail["sent_at"]))
            case "request" if detail["delivery"] == "normal":
                self._read(change, ledger)
            case _:
                pass

    def _read(self, change: Change, ledger: Json) -> None:
        detail, vm = change.detail, str(change.detail["vm"]).casefold()
        good = detail["status"] in (200, 206, 304)
        if detail["service"] == "arm" and change.subject.casefold().endswith("/health"):
            self.health_read_at = change.at
        sent_at = change.at if self._sent_at is None else self._sent_at
        in_time = change.at - sent_at <= REQUEST_S
        shown = change.subject == self._ledger and detail["method"] == "GET" and good and in_time
        if shown and self._readable:
            self.read_at[vm] = sent_at
            if detail["status"] != 304:
                self._saw(vm, ledger, change.at)

    def _saw(self, vm: str, ledger: Json, at: float) -> None:
        seen = self.views.setdefault(vm, [])
        if not seen or seen[-1] is not ledger:
            self.views[vm] = [*seen, ledger][-VIEWS:]
        if names(ledger, vm):
            self.unnamed_since.pop(vm, None)
        else:
            self.unnamed_since.setdefault(vm, at)


def names(ledger: Mapping[str, object], vm: str) -> bool:
    """Return whether an entry of a ledger asks for a VM to be closed.

    One of which everything is lost asks for nothing.
    """
    return any(
        entry["vm"].casefold() == vm and not entry.get("restored_at")
        for entry in parsed_entries(ledger)
        if entry["memberships"] or not entry.get("lost")
    )


def restores_since(ledger: Mapping[str, object], vm: str, since: float) -> bool:
    """Return whether a VM has been put back since an instant or longer: a pool refuses it."""
    return any(
        seconds_of(entry["recorded_at"]) < seconds_of(entry["restoring_at"]) <= since
        for entry in parsed_entries(ledger)
        if entry["vm"].casefold() == vm and entry.get("restoring_at")
    )


def parsed_entries(ledger: Mapping[str, object]) -> list[Json]:
    """Return the entries of a ledger."""
    found = ledger.get("entries", [])
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
