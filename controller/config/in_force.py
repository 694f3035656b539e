"""The configuration that an agent acts by now: its file, and what was changed since.

The parts of an agent ask this object each time, so that a change needs no restart and the lease
stays. Two things change it: a reload of the file, and settings of the whole set that are stored
beside the ledger (`adjust`), which apply on top of the file.

A reload applies what can change while the agent runs: `RELOADED`, and the floors of the pools. The
rest keeps the value that the agent started with, and the result names it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from controller.config.base import Section
from controller.config.schema import Settings
from controller.core.azure_names import fold
from controller.core.policy import Policy

RELOADED = frozenset(
    {
        "policy.lead_time_s",
        "policy.far_ahead",
        "policy.far_ahead_window",
        "policy.connection_drain_s",
        "policy.acknowledge",
        "policy.acknowledge_unmanaged",
        "policy.acknowledge_ignored",
        "policy.restore_settle_s",
        "policy.restore_ready_timeout_s",
        "policy.restore_when_not_ready",
        "policy.events",
        "drain.quiet_s",
        "drain.open_after_s",
        "hooks",
        "notifications",
    }
)
"""The settings, or whole tables, that a reload applies. Of a managed pool, all but its id."""

Adjustment = Callable[[Settings], Settings]
"""Returns the settings of the file with those of the whole set instead."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload came to; keys are dotted, in the order of the file."""

    applied: tuple[str, ...]
    """The settings that have another value now."""
    restart: tuple[str, ...]
    """The settings whose new value needs a restart."""


class ConfigurationInForce:
    """The settings and the policy of one agent, now.

    Args:
        settings: the configuration that the agent starts with.
    """

    def __init__(self, settings: Settings) -> None:
        self._file = self._settings = settings
        self._policy = settings.core_policy()
        self._adjustment: Adjustment = lambda settings: settings
        self._listeners: list[Callable[[], None]] = []

    @property
    def settings(self) -> Settings:
        """The settings."""
        return self._settings

    @property
    def file(self) -> Settings:
        """The settings by the file alone, without those of the whole set."""
        return self._file

    @property
    def policy(self) -> Policy:
        """What the core decides by."""
        return self._policy

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every change. It must return at once."""
        self._listeners.append(listener)

    def reload(self, settings: Settings) -> Reloaded:
        """Apply what can change at run time of a configuration that was read again."""
        before, merged = self._file, reloaded(self._file, settings)
        self._apply(merged, self._adjustment)
        return Reloaded(
            applied=changed_keys(before, merged), restart=changed_keys(merged, settings)
        )

    def adjust(self, adjustment: Adjustment) -> None:
        """Apply settings of the whole set on top of the file, from now on."""
        self._apply(self._file, adjustment)

    def _apply(self, file: Settings, adjustment: Adjustment) -> None:
        self._file, self._adjustment = file, adjustment
        settings = adjustment(file)
        if settings == self._settings:
            return
        self._settings, self._policy = settings, settings.core_policy()
        for listener in self._listeners:
            listener()


def reloaded(running: Settings, read: Settings) -> Settings:
    """Return the running settings with every setting of `read` that a reload applies."""
    found = {fold(pool.id): pool for pool in read.backend_pools}
    pools = tuple(
        found.get(fold(pool.id), pool).model_copy(update={"id": pool.id})
        for pool in running.backend_pools
    )
    return running.model_copy(
        update={
            "backend_pools": pools,
            "policy": running.policy.model_copy(update=_reloaded_in("policy", read.policy)),
            "drain": running.drain.model_copy(update=_reloaded_in("drain", read.drain)),
            "hooks": read.hooks,
            "notifications": read.notifications,
        }
    )


def _reloaded_in(table: str, read: Section) -> dict[str, object]:
    """Return the values of a table that a reload applies."""
    keys = (key.partition(".")[2] for key in RELOADED if key.startswith(f"{table}."))
    return {key: getattr(read, key) for key in keys}


def changed_keys(before: Settings, after: Settings) -> tuple[str, ...]:
    """Return the settings that differ, by dotted key; pools are compared by their ids."""
    old, new = dict(_values(before)), dict(_values(after))
    return tuple(key for key in {**old, **new} if old.get(key) != new.get(key))


def _values(settings: Settings) -> Iterator[tuple[str, object]]:
    """Yield every setting with its key. A list is one setting; pools are known by their names."""
    names = settings.pool_names()
    yield "backend_pools", frozenset(names)
    for pool in settings.backend_pools:
        for key, value in pool.model_dump(exclude={"id"}).items():
            yield f"{key} of pool {names[fold(pool.id)]}", value
    yield from _flat(settings.model_dump(exclude={"backend_pools"}))


def _flat(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(cast("dict[str, object]", value), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
