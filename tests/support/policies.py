"""Policies with the defaults that an operator gets, for tests that care about a few values."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from controller.config.schema import EventPolicySection, PolicySection
from controller.core.policy import EventAction, EventPolicy, Floor, Policy


def make_policy(*, pools: Mapping[str, Floor], **changes: Any) -> Policy:
    """Return the default policy for these pools with `changes`; VMs do not close unless stated."""
    return replace(PolicySection(close=False).core_policy(pools), **changes)


def make_event_policy(**changes: Any) -> EventPolicy:
    """Return the default policy for one event type, with `changes`."""
    section = EventPolicySection()
    default = EventPolicy(
        action=EventAction(section.action),
        min_duration_s=section.min_duration_s,
        acknowledge=section.acknowledge,
    )
    return replace(default, **changes)
