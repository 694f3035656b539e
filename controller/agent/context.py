"""What the parts of an agent are built from."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from controller.agent.adapters import BuildAdapters, build_adapters
from controller.agent.present_set import PresentSet
from controller.agent.startup import AgentIdentity
from controller.agent.tuning import DEFAULT_TUNING, Tuning
from controller.azure.http.session import Azure
from controller.clock import CorrectedClock
from controller.config.in_force import ConfigurationInForce
from controller.config.schema import Settings
from controller.core.planning.mechanism import Mechanisms
from controller.core.planning.mechanisms import MECHANISMS
from controller.storage.annotations import LedgerAnnotations
from controller.vm_side.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentContext:
    """What the parts of an agent are built from."""

    azure: Azure
    identity: AgentIdentity
    present_set: PresentSet
    """The set that the VMs are in now."""
    configuration: ConfigurationInForce
    """Settings and policy, which can change while the agent runs."""
    clock: CorrectedClock
    entropy: random.Random
    """Source of lease ids and jitter."""
    annotations: LedgerAnnotations
    """Merged into every ledger that is written."""
    woken: asyncio.Event
    """Set when a pass is due."""
    tuning: Tuning = DEFAULT_TUNING
    machine: Machine | None = None
    """The machine of the VM's own side; None for the one that this process runs on."""
    mechanisms: Mechanisms = MECHANISMS
    """The ways to take a VM out of rotation."""
    adapters: BuildAdapters = build_adapters
    """Makes what carries out their writes."""
    problem: Callable[[], str] = lambda: ""
    """Returns why the agent is not ready; empty when it is."""

    @property
    def settings(self) -> Settings:
        """The settings that the parts are built from. Those that change are asked for later."""
        return self.configuration.settings
