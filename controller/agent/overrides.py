"""Applies the settings of the whole set on top of the file of this agent, while they are in force.

An override that is not valid on top of this file is left out and reported; the others apply.
"""

from controller.config.in_force import ConfigurationInForce
from controller.config.overrides import adjusted
from controller.config.schema import Settings
from controller.core.controls import NO_CONTROLS
from controller.storage.controls_store import ControlsWatch


class OverridesInForce:
    """The overrides that one agent applies.

    Args:
        configuration: what they change.
        controls: where they are read.
    """

    def __init__(self, configuration: ConfigurationInForce, controls: ControlsWatch) -> None:
        self._configuration, self._controls = configuration, controls
        self._applied = NO_CONTROLS.overrides
        self.problem = ""
        """Which overrides do not apply here, and why; empty if all do."""

    def apply(self) -> None:
        """Apply the overrides that are in force now; those that have ended do not any more."""
        wanted = self._controls.controls.overrides
        if wanted == self._applied:
            return
        self._applied = wanted

        def adjustment(settings: Settings) -> Settings:
            found, problems = adjusted(settings, wanted)
            self.problem = "; ".join(problems)
            return found

        self._configuration.adjust(adjustment)
