"""The text of a configuration file: every setting, what it is for, and its default. Pure.

The words are those of `controller.settings`, read from where they stand beside the keys. Only what
was found or said is set; every other key stands there as a comment, to be switched on.
"""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from pydantic import BaseModel

from controller.core.model import PoolKind
from controller.first_run.discover import Found, FoundPool
from controller.settings import Settings

WIDTH = 98
KINDS = {PoolKind.NIC: "NIC-based", PoolKind.ADDRESS: "IP-based", PoolKind.EMPTY: "empty"}
NOTIFICATIONS = """
# Who is told of what; one table per channel, nobody by default. See "Being told" in the runbook.
# [[notifications]]
# kind = "slack"
# url_file = "/run/credentials/lb-drain.service/slack-url"
"""

_TAG = re.compile(r"; `\[.*?\]`")
"""Where a description names its table, which stands right below it here."""

Values = Mapping[str, object]
"""Values by dotted key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What the file says."""

    pools: tuple[tuple[str, FoundPool | None], ...]
    """Pool ids, and what was found of them; None when Azure was not asked, or did not know."""
    values: Values
    """What else is set."""
    found: Found | None = None


def compose(content: Content) -> str:
    """Return the file."""
    lines = [
        *_comment(
            "Configuration of lb-drain, written by `lb-drain init`. Every VM of the set has the "
            "same file. What is commented out is the default. `lb-drain check-config` shows what "
            "is in force, `lb-drain doctor` whether it can work."
        )
    ]
    if content.found:
        lines += _comment(f"Availability set: {content.found.availability_set_id!a}")
    told: set[tuple[str, str]] = set()
    for pool_id, pool in content.pools:
        lines += ["", "[[backend_pools]]", f"id = {_toml(pool_id)}"]
        lines += _comment(_why(pool, content.found))
        lines += [f"min_in_service = {_floor(pool, content.found)}"]
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            about = _TAG.sub("", inspect.cleandoc(field.annotation.__doc__ or ""))
            lines += _table(field.annotation, name, about, content.values, told)
    return "\n".join(lines) + "\n" + NOTIFICATIONS


def _floor(pool: FoundPool | None, found: Found | None) -> int:
    return pool.floor(found.at_once) if pool and found else 1


def _why(pool: FoundPool | None, found: Found | None) -> str:
    """Return why this floor is proposed."""
    floor = (
        'The floor: as many members always stay in rotation; a number, or "50%" of the full pool. '
    )
    if pool is None or found is None:
        return floor + "Who is in this pool was not found out: 1 is the default."
    others = f", {pool.others} of others" if pool.others else ""
    now = f"{KINDS[pool.kind]}; members now: {pool.ours} of this set{others}. "
    members = pool.ours + pool.others
    if members <= found.at_once:
        least = (
            "With so few members the floor keeps the last one in, also during its maintenance: "
            "nobody else would serve. 0 lets it go."
        )
    else:
        least = (
            f"{members - found.at_once} is what stays when planned maintenance takes one update "
            f"domain, here {found.at_once} of {found.vms} VMs. Lower it if more can be spared at "
            "once: what the floor forbids has to wait, and maintenance does not."
        )
    return floor + now + least


def _table(
    model: type[BaseModel], path: str, about: str, values: Values, told: set[tuple[str, str]]
) -> Iterator[str]:
    """Yield a table, and the tables in it after its keys."""
    docs = _docs(model)
    yield ""
    yield from _comment(about)
    yield f"[{path}]"
    tables: list[tuple[type[BaseModel], str]] = []
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            tables.append((field.annotation, key))
            continue
        if (key, docs[key]) not in told:
            told.add((key, docs[key]))
            yield from _comment(docs[key])
        dotted = f"{path}.{key}"
        if dotted in values:
            yield f"{key} = {_toml(values[dotted])}"
        else:
            yield f"# {key} = {_toml(field.default)}"
    for table, key in tables:
        yield from _table(table, f"{path}.{key}", docs[key], values, told)


def _docs(model: type[BaseModel]) -> dict[str, str]:
    """Return what stands below each key of a table in the source."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__[: model.__mro__.index(BaseModel)]):
        (tree,) = ast.parse(inspect.getsource(each)).body
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for statement, below in pairwise(body):
            match statement, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str() as text)),
                ):
                    found[name] = inspect.cleandoc(text)
                case _:
                    pass
    return found


def _comment(text: str) -> list[str]:
    return [
        f"# {line}"
        for line in textwrap.wrap(text, WIDTH - 2, break_long_words=False, break_on_hyphens=False)
    ]


def _toml(value: object) -> str:
    """Return a value as TOML; whole seconds without a fraction, as people write them."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False)
