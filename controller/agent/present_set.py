"""The set that the VMs of this agent are in now: Azure can convert it while the agent runs."""

import logging

from controller.core.azure_names import SetKind, fold, short
from controller.observability.logs import log

logger = logging.getLogger("lbdrain.agent")


class PresentSet:
    """Shared by everything that reads the set or names it."""

    def __init__(self, set_id: str) -> None:
        self.set_id = set_id

    @property
    def kind(self) -> SetKind:
        """Whether it is an availability set or a scale set."""
        return SetKind.of(self.set_id)

    def follow(self, set_id: str) -> None:
        """Continue in the set that Azure has made of this one."""
        if fold(set_id) == fold(self.set_id):
            return
        message = (
            f"the {self.kind.value} {short(self.set_id)} was converted to the "
            f"{SetKind.of(set_id).value} {short(set_id)}: this agent continues in it, with the "
            "same ledger"
        )
        self.set_id = set_id
        log(logger, logging.INFO, message, event="set_converted")
