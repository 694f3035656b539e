"""What the status page shows of Azure Resource Graph. Pure: no I/O, no clock."""

from controller.core.second_source import early_ends, unpublished
from controller.status.overview_schema import ResourceGraphView
from controller.status.snapshot import AgentSnapshot
from controller.status.state_json import instant_or_none


def resource_graph_view(snapshot: AgentSnapshot) -> ResourceGraphView | None:
    """Return what is known from Resource Graph; None if this agent does not ask it."""
    known, document = snapshot.second_source, snapshot.document
    if known is None:
        return None
    return ResourceGraphView(
        as_of=instant_or_none(known.at),
        problem=known.problem,
        unpublished=list(unpublished(known, document, snapshot.seen_events, snapshot.now)),
        early_ends=list(early_ends(known, document)),
        set_aside=list(known.set_aside),
    )
