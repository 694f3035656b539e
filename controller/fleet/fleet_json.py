"""The object of `lb-drain fleet --json`; docs/api.md describes it.

A new key may be added within a version. `SCHEMA_VERSION` grows when a key is removed, or gets
another meaning.
"""

from controller.core.event_record import WatchedEvent
from controller.core.fleet import SetSummary
from controller.fleet.reader import ContainerResult, Fleet
from controller.status.hold_views import recorded_holds_json
from controller.status.state_json import (
    instant,
    instant_or_none,
    seconds_or_none,
    verdict_json,
    watched_json,
)

SCHEMA_VERSION = 1


def fleet_json(fleet: Fleet) -> dict[str, object]:
    """Return the fleet as JSON values."""
    return {
        "version": SCHEMA_VERSION,
        "at": instant(fleet.at),
        "containers": [_container(each) for each in fleet.containers],
        "sets": [_set(fleet, each) for each in fleet.sets],
    }


def _container(result: ContainerResult) -> dict[str, object]:
    return {
        "url": result.url,
        "blobs": result.blobs,
        "not_shown": result.not_shown,
        "problem": result.problem or None,
    }


def _set(fleet: Fleet, row: SetSummary) -> dict[str, object]:
    ledger, verdict, missed = row.ledger, row.last_verdict, row.last_missed
    silence = None if row.written_at is None else (fleet.at - row.written_at).total_seconds()
    return {
        "set": row.name.name,
        "resource_group": row.name.resource_group or None,
        "subscription": row.name.subscription or None,
        "set_id": ledger.set_id or None,
        "container_url": row.container_url,
        "blob": row.blob,
        "attention": row.attention.name.casefold(),
        "problems": [
            {"level": each.level.name.casefold(), "reason": each.reason.value, "text": each.text}
            for each in row.problems
        ],
        "readable": row.readable,
        "leader": row.leader or None,
        "leader_since": instant_or_none(ledger.leader_since) if row.leader else None,
        "lease_state": row.lease_state or None,
        "epoch": ledger.epoch,
        "agents_seen": list(row.agents_seen),
        "agents_silent": list(row.agents_silent),
        "vms_out": [
            {"vm": each.vm, "phase": each.phase.value, "since": instant(each.since)}
            for each in row.drained
        ],
        "vms_at_risk": list(row.at_risk),
        "holds": recorded_holds_json(ledger),
        "next_event": _event(row.next_event),
        "last_verdict": verdict_json(verdict) if verdict else None,
        "last_missed": verdict_json(missed) if missed else None,
        "written_at": instant_or_none(row.written_at),
        "silence_s": seconds_or_none(silence),
    }


def _event(event: WatchedEvent | None) -> dict[str, object] | None:
    return None if event is None else watched_json(event)
