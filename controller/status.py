"""What an agent tells of itself, gathered from its parts: `/status`, and the status page's facts.

Decides nothing and changes nothing, but for one thing: who asks a standby makes it glance at the
ledger.
"""

from dataclasses import replace

from controller.elector import Elector
from controller.glance import Glance
from controller.home import Home
from controller.overview import Facts
from controller.reconciler import Reconciler
from controller.watcher import Watcher


def brief(
    home: Home, watcher: Watcher, reconciler: Reconciler, elector: Elector | None
) -> dict[str, object]:
    """Return the object of `/status`."""
    ledger, plan = reconciler.ledger, reconciler.plan
    leading = elector is not None and elector.leading
    document = watcher.document
    return {
        "vm": home.instance.name,
        "availability_set": home.availability_set_id,
        "state": elector.state.value if elector else "dry run",
        "leading": leading,
        "epoch": ledger.epoch if leading else None,
        "document_age_s": None if document is None else round(watcher.age_s(), 1),
        "events": [
            {
                "event_id": event.event_id,
                "event_type": event.event_type,
                "status": event.status.value,
                "resources": list(event.resources),
                "not_before": event.not_before and event.not_before.isoformat(),
                "duration_s": event.duration_s,
                "source": event.source.value,
            }
            for event in (document.events if document else ())
        ],
        "vms": [
            {"vm": each.vm, "phase": each.phase.value, "why": each.why}
            for each in (plan.phases if plan else ())
        ],
        "holds": [
            {"subject": hold.subject, "reason": hold.reason, "message": hold.message}
            for hold in (plan.holds if plan else ())
        ],
        "pools_without_peers": list(reconciler.views.pools_without_peers(ledger)),
        "writes_parallel_limit": reconciler.pace.limit,
        "inventory_period_s": reconciler.inventory_period_s,
    }


def at_home(facts: Facts, home: Home, watcher: Watcher, reconciler: Reconciler) -> Facts:
    """Add who this agent is and what it reads itself."""
    return replace(
        facts,
        vm=home.instance.name,
        availability_set_id=home.availability_set_id,
        peers=home.vms,
        document=watcher.document,
        document_age_s=None if watcher.document is None else watcher.age_s(),
        failed_polls=watcher.failures,
        plan=reconciler.plan,
        vms=reconciler.views.vms,
        nics=reconciler.views.nics,
        pools=reconciler.views.pools,
    )


def in_election(
    facts: Facts, reconciler: Reconciler, elector: Elector | None, glance: Glance | None
) -> Facts:
    """Add lease and ledger: a leader knows both, a dry run reads them, a standby glances."""
    if elector is None or glance is None:
        return replace(
            facts,
            role="dry run",
            lease_state=reconciler.lease_state,
            ledger=reconciler.ledger,
            ledger_at=facts.now,
        )
    facts = replace(facts, role=elector.state.value)
    if facts.plan is not None and elector.leading:
        return replace(
            facts,
            lease_state="leased",
            valid_for_s=elector.left_s,
            ledger=reconciler.ledger,
            ledger_at=facts.now,
        )
    # What it knew when it led gets older and older.
    facts = replace(facts, plan=None, vms=(), nics=(), pools=(), ledger_problem=glance.problem)
    glance.ask()
    if glance.look is None:
        return facts
    return replace(
        facts,
        lease_state=glance.look.lease_state,
        ledger=glance.look.ledger,
        ledger_at=glance.look.at,
    )
