"""The settings of `[events]`: what stands beside the metadata service of the VM."""

from typing import Literal

from controller.config.base import Section


class Events(Section):
    """Second ways to learn of scheduled events and to acknowledge them; `[events]`."""

    resource_graph: bool = False
    """Whether the leader also asks Azure Resource Graph (preview), which states whether an event
    was completed or cancelled. The metadata service alone decides what is drained, restored and
    acknowledged. Needs a set that publishes its events there."""
    acknowledge_through: Literal["imds", "imds-then-arm"] = "imds"
    """How events are acknowledged. `imds`: through the metadata service of the leader's VM.
    `imds-then-arm`: after two failures in a row also through Resource Manager (preview), under the
    same conditions. The identity then needs the role `lb-drain acknowledgement`."""
