"""Settings of the whole set that apply on top of the file of every agent.

Operators store them beside the ledger (`core.controls`). What can be set is `OVERRIDABLE`: what the
leader decides by, and nothing that belongs to one VM. A value is validated by the same schema as
the file, with the same texts.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from controller.config.backend_pool import BackendPool
from controller.config.explain import explain
from controller.config.hints import nearest, shown
from controller.config.keys import TYPES, Location, value_of
from controller.config.loader import LoadedSettings
from controller.config.schema import PolicySection, Settings
from controller.core.azure_names import fold, short
from controller.core.controls import MIN_IN_SERVICE, Override
from controller.errors import NotDone

_POLICY = (
    "lead_time_s",
    "connection_drain_s",
    "acknowledge",
    "acknowledge_unmanaged",
    "acknowledge_ignored",
    "restore_settle_s",
)
OVERRIDABLE: dict[str, Location] = {
    ".".join(at[1:]): at
    for at in TYPES
    if at[0] == "policy" and (at[1] in _POLICY or at[1] == "events")
}
"""The keys of `[policy]` that can be set for the whole set, without the name of the table."""


class _Invalid(Exception):
    """An override that the schema refuses; the message states why."""


def adjusted(settings: Settings, overrides: Iterable[Override]) -> tuple[Settings, tuple[str, ...]]:
    """Return the settings with these overrides, and why others do not apply here.

    They are valid together, or each is tried on top of those before it.
    """
    wanted = tuple(overrides)
    try:
        return _with(settings, wanted), ()
    except _Invalid as error:
        if len(wanted) == 1:
            return settings, (str(error),)
    problems: list[str] = []
    for each in wanted:
        try:
            settings = _with(settings, (each,))
        except _Invalid as error:
            problems.append(str(error))
    return settings, tuple(problems)


def with_overrides(loaded: LoadedSettings, overrides: Iterable[Override]) -> LoadedSettings:
    """Return the settings in force, with the origin of each value."""
    found, origins = tuple(overrides), dict(loaded.origins)
    settings, _ = adjusted(loaded.settings, found)
    for each in found:
        key = ".".join(("policy", each.key))
        for index, pool in enumerate(settings.backend_pools):
            if each.pool and fold(pool.id) == fold(each.pool):
                key = f"backend_pools[{index}].{each.key}"
        if key in origins:
            origins[key] = f"override {each.author}"
    return LoadedSettings(settings, origins)


def parsed_key(text: str) -> str:
    """Return the key that an operator means: of `[policy]`, or `min_in_service`.

    Raises:
        NotDone: it is no setting, or cannot be set for the whole set.
    """
    key = text.strip().removeprefix("policy.")
    if key in OVERRIDABLE or key == MIN_IN_SERVICE:
        return key
    if ("policy", *key.split(".")) in TYPES:
        raise NotDone(f"{shown(key)} cannot change while the agents run: set it in every file")
    known = [MIN_IN_SERVICE, *OVERRIDABLE]
    raise NotDone(f"{shown(text)} is not a setting of the whole set; {nearest(key, known)}")


def pool_of(settings: Settings, name: str) -> str:
    """Return the id of the pool with this name: its id, `load balancer/pool`, or the last part.

    Raises:
        NotDone: no configured pool has the name, or several have; or none is given, and there are
            several pools.
    """
    names = settings.pool_names()
    found = [
        key
        for key, shown_name in names.items()
        if not name or fold(name) in {key, fold(shown_name), fold(short(key))}
    ]
    if len(found) == 1:
        return found[0]
    problem = "several pools have this name" if found else f"no pool is named {shown(name)}"
    if not name:
        problem = "name the pool with --pool"
    raise NotDone(f"{problem}: {', '.join(names.values())}")


def _with(settings: Settings, overrides: tuple[Override, ...]) -> Settings:
    pools = {fold(pool.id): pool for pool in settings.backend_pools}
    positions = {key: index for index, key in enumerate(pools)}
    policy = settings.policy.model_dump()
    for each in overrides:
        if each.key == MIN_IN_SERVICE:
            pool = pools.get(fold(each.pool))
            if pool is None:
                raise _Invalid(f"{each.setting}: this pool is not in [[backend_pools]]")
            changed = {**pool.model_dump(), MIN_IN_SERVICE: value_of(int, each.value)}
            at: Location = ("backend_pools", positions[fold(each.pool)])
            pools[fold(each.pool)] = cast(
                "BackendPool", _validated(BackendPool, changed, at, each.setting)
            )
        elif (at := OVERRIDABLE.get(each.key, ())) == ():
            raise _Invalid(f"{each.setting}: this agent knows no such setting of the whole set")
        else:
            _put(policy, at[1:], value_of(TYPES[cast("tuple[str, ...]", at)], each.value))
    names = ", ".join(each.setting for each in overrides)
    return settings.model_copy(
        update={
            "policy": _validated(PolicySection, policy, ("policy",), names),
            "backend_pools": tuple(pools[fold(pool.id)] for pool in settings.backend_pools),
        }
    )


def _put(table: dict[str, Any], at: Location, value: object) -> None:
    for key in at[:-1]:
        table = table[str(key)]
    table[str(at[-1])] = value


def _validated(
    model: type[BaseModel], document: dict[str, Any], at: Location, origin: str
) -> BaseModel:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=True)
        for each in errors:
            each["loc"] = (*at, *each["loc"])
        lines = explain(errors, path=Path(origin), text="", origins={})
        raise _Invalid("; ".join(lines)) from None
