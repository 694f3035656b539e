"""From the operator's settings to what the core decides by."""

from controller.core.model import EventAction, EventPolicy, Floor, Policy
from controller.settings import Settings


def policy_from(settings: Settings) -> Policy:
    """Translate the operator's settings into what the core decides by."""
    pools = {
        pool.id: Floor(number=pool.floor[0], percent=pool.floor[1])
        for pool in settings.backend_pools
    }
    events = {
        name: EventPolicy(
            action=EventAction(event.action),
            min_duration_s=event.min_duration_s,
            acknowledge=event.acknowledge,
        )
        for name, event in settings.policy.events.by_type().items()
    }
    return Policy(
        pools=pools,
        events=events,
        lead_time_s=settings.policy.lead_time_s,
        connection_drain_s=settings.policy.connection_drain_s,
        acknowledge=settings.policy.acknowledge,
        acknowledge_unmanaged=settings.policy.acknowledge_unmanaged,
        acknowledge_ignored=settings.policy.acknowledge_ignored,
        restore_settle_s=settings.policy.restore_settle_s,
    )
