"""Which blobs of a container belong to which availability set, by their names alone.

Beside a ledger `NAME.json` are `NAME.requests.json`, `NAME.controls.json`, the reports of its VMs
in `NAME.vms/`, the presence of its agents in `NAME.agents/`, and copies of unreadable content in
`NAME.json.unreadable-DIGEST`. Pools that several sets share have blobs of their own. Every other
blob is taken for a ledger: `election.blob_name` may be any name.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from controller.azure.container import ListedBlob
from controller.core.fleet import AgentTrace
from controller.storage.presence_json import presence_place

SHARED_POOLS = "pools/"
_REQUESTS = re.compile(r"(.+)\.requests\.json")
_CONTROLS = re.compile(r"(.+)\.controls\.json")
_REPORT = re.compile(r"(.+)\.vms/[^/]+\.json")
_SET_ASIDE = re.compile(r"(.+)\.unreadable-[0-9a-f]{12}")


@dataclass(slots=True, kw_only=True)
class SetBlobs:
    """The blobs of one set."""

    ledger: str
    """The name of the ledger's blob."""
    listed: ListedBlob | None = None
    """The ledger's blob; None if only other blobs of the set exist."""
    others: list[ListedBlob] = field(default_factory=list[ListedBlob])
    """All other blobs of the set."""
    controls: ListedBlob | None = None
    """The blob with the controls of the set, which is one of the others; None without one."""
    agents: list[AgentTrace] = field(default_factory=list[AgentTrace])
    """When the presence of each agent was written."""

    @property
    def written_at(self) -> datetime | None:
        """When any blob of the set was written last."""
        blobs = (*self.others, self.listed) if self.listed else self.others
        return max((each.written_at for each in blobs), default=None)


def sets_in(blobs: Iterable[ListedBlob]) -> tuple[SetBlobs, ...]:
    """Return the sets of a container, in order of the names of their ledgers."""
    found: dict[str, SetBlobs] = {}
    others: list[tuple[str, str, ListedBlob]] = []
    """Name without .json, VM of an agent, blob."""
    controls: set[str] = set()
    """The names of the blobs with controls."""
    for blob in blobs:
        if blob.name.startswith(SHARED_POOLS):
            continue
        if aside := _SET_ASIDE.fullmatch(blob.name):
            others.append((aside[1], "", blob))
        elif beside := _REQUESTS.fullmatch(blob.name) or _REPORT.fullmatch(blob.name):
            others.append((beside[1], "", blob))
        elif control := _CONTROLS.fullmatch(blob.name):
            others.append((control[1], "", blob))
            controls.add(blob.name)
        elif place := presence_place(blob.name):
            others.append((place[0].removesuffix(".json"), place[1], blob))
        else:
            found[blob.name] = SetBlobs(ledger=blob.name, listed=blob)
    for base, vm, blob in others:
        name = base if base in found else f"{base.removesuffix('.json')}.json"
        owner = found.setdefault(name, SetBlobs(ledger=name))
        owner.others.append(blob)
        if blob.name in controls:
            owner.controls = blob
        if vm:
            owner.agents.append(AgentTrace(vm=vm, written_at=blob.written_at))
    return tuple(found[name] for name in sorted(found))
