"""The object of `/status`: what one agent does now, in brief.

Pure: no I/O, no clock.
"""

from controller.status.hold_views import holds_json
from controller.status.snapshot import AgentSnapshot
from controller.status.state_json import (
    control_json,
    event_json,
    phase_json,
    seconds_or_none,
    verdict_json,
)


def agent_status(snapshot: AgentSnapshot) -> dict[str, object]:
    """Return the object of `/status`; of an agent that is starting, only what it waits for."""
    health, plan, document = snapshot.health, snapshot.plan, snapshot.document
    if health.role == "starting":
        return {"state": health.waiting_for}
    ledger = snapshot.ledger
    return {
        "vm": snapshot.vm,
        "availability_set": snapshot.availability_set_id,
        "state": health.role,
        "leading": health.leading,
        "epoch": ledger.epoch if health.leading and ledger else None,
        "document_age_s": seconds_or_none(snapshot.document_age_s),
        "events": [event_json(event) for event in (document.events if document else ())],
        "vms": [phase_json(phase) for phase in (plan.phases if plan else ())],
        "verdicts": [verdict_json(found) for found in (ledger.verdicts if ledger else ())],
        "holds": holds_json(snapshot, plan.holds if plan else ()),
        "controls": [control_json(each) for each in health.controls.listed],
        "pools_without_peers": list(snapshot.pools_without_peers),
        "writes_parallel_limit": snapshot.write_limit,
        "inventory_period_s": snapshot.inventory_period_s,
    }
