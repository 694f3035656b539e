"""Settings of the whole set in the name of one user: set them, unset them, list them."""

from datetime import timedelta

from controller.config.overrides import adjusted, parsed_key, pool_of
from controller.config.schema import Settings
from controller.core.controls import MIN_IN_SERVICE, Control, Controls, Override
from controller.errors import NotDone
from controller.operator.controls import other_than, report_replaced
from controller.operator.drain_client import DrainClient
from controller.operator.request_client import LONGEST_TEXT

LONGEST_VALUE = 50


def parsed(assignment: str) -> tuple[str, str]:
    """Return key and value of `key=value`.

    Raises:
        NotDone: it is no assignment, or no such setting can be set for the whole set.
    """
    key, equals, value = assignment.partition("=")
    text = value.strip().strip("\"'")
    if not equals or not text or len(text) > LONGEST_VALUE:
        raise NotDone(f"{assignment[:LONGEST_VALUE]!r} is not of the form KEY=VALUE")
    return parsed_key(key), text


async def override(
    client: DrainClient,
    settings: Settings,
    assignment: str,
    *,
    pool: str,
    for_s: float,
    reason: str,
) -> Override:
    """Set a setting for the whole set; replaces its override that is in force.

    Args:
        client: the client of the set.
        settings: the file of this machine, on top of which the value has to be valid.
        assignment: `key=value`.
        pool: the name of a pool; may be empty if the key is of no pool, or if there is one pool.
        for_s: after how many seconds it ends.
        reason: why.

    Raises:
        NotDone: the setting, the pool or the value is wrong.
        ControllerError: the controls could not be written.
    """
    key, value = parsed(assignment)
    now = client.now()
    wanted = Override(
        key=key,
        pool=_pool_id(settings, key, pool),
        value=value,
        by=client.requester,
        reason=reason[:LONGEST_TEXT],
        at=now,
        until=now + timedelta(seconds=for_s),
    )

    before: Control | None = None

    def set_it(controls: Controls) -> Controls:
        nonlocal before
        known = controls.in_force(now)
        before = other_than(wanted, known.override_of(wanted.key, wanted.pool)) or before
        others = known.without_override(wanted.key, wanted.pool).overrides
        # What is wrong with another override is not a matter of this one.
        problems = set(adjusted(settings, (*others, wanted))[1]) - set(
            adjusted(settings, others)[1]
        )
        if problems:
            raise NotDone(f"nothing was changed: {'; '.join(sorted(problems))}")
        return known.overriding(wanted)

    await client.controls.change(set_it)
    report_replaced(client, before)
    return wanted


async def unset(client: DrainClient, settings: Settings, key: str, *, pool: str) -> Override:
    """End the override of a setting, and return it.

    Raises:
        NotDone: the setting or the pool is wrong, or is not overridden.
        ControllerError: the controls could not be written.
    """
    name, now, ended = parsed_key(key), client.now(), None
    pool_id = _pool_id(settings, name, pool)

    def without(controls: Controls) -> Controls:
        nonlocal ended
        ended = controls.in_force(now).override_of(name, pool_id) or ended
        return controls.in_force(now).without_override(name, pool_id)

    await client.controls.change(without)
    if ended is None:
        raise NotDone(f"{name} is not overridden: nothing was changed")
    return ended


async def overrides(client: DrainClient) -> tuple[Override, ...]:
    """Return the overrides that are in force.

    Raises:
        ControllerError: the controls could not be read.
    """
    await client.controls.refresh_if_exists()
    return client.controls.content.in_force(client.now()).overrides


def _pool_id(settings: Settings, key: str, pool: str) -> str:
    if key == MIN_IN_SERVICE:
        return pool_of(settings, pool)
    if pool:
        raise NotDone(f"{key} is of no pool: leave out --pool")
    return ""
