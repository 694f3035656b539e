"""The changes of a world: the append-only record that tests check the laws against."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Change:
    """One transition. `kind` is one of the words below, or a word of another module that records.

    - `member_in`, `member_out`: the data plane. Subject pool id; detail vm, nic, ip_configuration,
      address. Equal for NIC-based and IP-based pools; a value that does not apply is "".
    - `member_state`: a write of a pool changed the adminState of a member. Detail as above, and
      before, state. `evicted` (detail ip_configuration): a write of the pool left a NIC out.
    - `write`: an accepted PUT. Subject resource id; detail by, operation ("" if synchronous).
    - `operation_ended`: Subject operation id; detail resource, status.
    - `event_published`, `event_acknowledged` (detail by, first), `event_started` (detail was: its
      id until then), `event_gone`, `event_cancelled`: Subject event id; detail event_type,
      resources (comma separated).
    - `vm_down` (detail state), `vm_up`, `vm_state` (detail state): Subject VM name.
    - `application_closed`, `application_opened`: Subject VM name.
    - `maintenance_planned`, `maintenance_begun` (detail by), `maintenance_ended` (detail result):
      Subject VM name.
    - `operator`: an edit that bypassed every API. Subject resource id; detail what.
    """

    at: float
    kind: str
    subject: str
    detail: Mapping[str, object] = field(default_factory=dict[str, object])
