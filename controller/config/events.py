"""The settings of `[events]`: what stands beside the metadata service of the VM."""

from controller.config.base import Section


class Events(Section):
    """Second ways to learn of scheduled events and to acknowledge them; `[events]`."""

    resource_graph: bool = False
    """Whether the leader also asks Azure Resource Graph (preview), which states whether an event
    was completed or cancelled. The metadata service alone decides what is drained, restored and
    acknowledged. Needs a set that publishes its events there."""
