"""The text of a configuration file: every setting, its purpose and its default. Pure.

The comments are the descriptions beside the keys in `controller.config.schema`. Only discovered and
given values are set; every other key is a comment with its default, ready to uncomment.
"""

import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from controller.config.backend_pool import BackendPool
from controller.config.descriptions import descriptions
from controller.config.schema import Settings
from controller.core.azure_names import SetKind
from controller.setup.discovery import DiscoveredPool, Discovery

WIDTH = 98
NOTIFICATIONS = """
# Notification channels: one table for each, none by default. See "Notifications" in the runbook.
# [[notifications]]
# kind = "slack"
# url_file = "/run/credentials/lb-drain.service/slack-url"
"""
HOOKS = """
# Commands that the agent of a VM runs while it is drained: one table for each, none by default. See
# "Prepare your application" in the runbook. `on` is closing, closed, opening or opened.
# [[hooks]]
# on = "closing"
# command = ["/usr/local/bin/finish", "now"]
# timeout_s = 30
"""

_TAG = re.compile(r"; `\[.*?\]`")
"""The table name in a description; here the table header follows the description."""

Values = Mapping[str, object]
"""Values by dotted key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateContent:
    """What the file sets."""

    pools: tuple[tuple[str, DiscoveredPool | None], ...]
    """Pool ids, and what was discovered about each; None if that is unknown."""
    values: Values
    """The other values to set."""
    discovery: Discovery | None = None


def compose(content: TemplateContent) -> str:
    """Return the file."""
    lines = [
        *_comment(
            "Configuration of lb-drain, written by `lb-drain init`. Use the same file on every VM "
            "of the set. Commented keys have their default. `lb-drain check-config` shows the "
            "values in use, `lb-drain doctor` checks the prerequisites."
        )
    ]
    if content.discovery:
        kind = SetKind.of(content.discovery.set_id).value.capitalize()
        lines += _comment(f"{kind}: {content.discovery.set_id!a}")
    described: set[tuple[str, str]] = set()
    for pool_id, pool in content.pools:
        lines += ["", "[[backend_pools]]", f"id = {_toml(pool_id)}"]
        lines += _comment(_why(pool, content.discovery))
        lines += [f"min_in_service = {_floor(pool, content.discovery)}"]
        lines += [*_comment(descriptions(BackendPool)["shared"]), '# shared = "coordinate"']
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            about = _TAG.sub("", inspect.cleandoc(field.annotation.__doc__ or ""))
            lines += _table(field.annotation, name, about, content.values, described)
    return "\n".join(lines) + "\n" + NOTIFICATIONS + HOOKS


def _floor(pool: DiscoveredPool | None, discovery: Discovery | None) -> int:
    return pool.floor(discovery.max_simultaneous) if pool and discovery else 1


def _why(pool: DiscoveredPool | None, discovery: Discovery | None) -> str:
    """Return why this floor is proposed."""
    floor = (
        "Capacity floor: the number of members that must stay in rotation, or a percentage of the "
        'full pool such as "50%". '
    )
    if pool is None or discovery is None:
        return floor + "The members of this pool are unknown: 1 is the default."
    others = f", {pool.others} other" if pool.others else ""
    now = f"{pool.kind.label}; members now: {pool.peers} of this set{others}. "
    if pool.out:
        now += (
            f"In no pool now, and counted as members: {', '.join(pool.out)!a}. Lower the floor for "
            "each VM that does not belong to this pool. "
        )
    members, affected = pool.expected, discovery.max_simultaneous
    if members <= affected:
        reason = (
            "With so few members, the floor keeps the last member in rotation even during its own "
            "maintenance. Set 0 to let it drain."
        )
    else:
        reason = (
            f"{_members(members - affected)} when planned maintenance affects one update "
            f"domain, here {affected} of {discovery.vms} VMs. Lower the floor if the service needs "
            "fewer: a drain waits while the floor is reached, but maintenance does not wait."
        )
    return floor + now + reason


def _members(count: int) -> str:
    return "1 member remains" if count == 1 else f"{count} members remain"


def _table(
    model: type[BaseModel], path: str, about: str, values: Values, described: set[tuple[str, str]]
) -> Iterator[str]:
    """Yield a table, and after its keys the tables in it."""
    docs = descriptions(model)
    yield ""
    yield from _comment(about)
    yield f"[{path}]"
    tables: list[tuple[type[BaseModel], str]] = []
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            tables.append((field.annotation, key))
            continue
        if (key, docs[key]) not in described:
            described.add((key, docs[key]))
            yield from _comment(docs[key])
        dotted = f"{path}.{key}"
        if dotted in values:
            yield f"{key} = {_toml(values[dotted])}"
        else:
            yield f"# {key} = {_toml(field.default)}"
    for table, key in tables:
        yield from _table(table, f"{path}.{key}", docs[key], values, described)


def _comment(text: str) -> list[str]:
    return [
        f"# {line}"
        for line in textwrap.wrap(text, WIDTH - 2, break_long_words=False, break_on_hyphens=False)
    ]


def _toml(value: object) -> str:
    """Return a value as TOML, whole seconds without a fraction."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False)
