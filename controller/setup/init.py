"""`lb-drain init`: writes what Azure, the command line and the operator answered to one file.

Nothing is written before everything is known and the text is one that an agent loads. The file then
appears as a whole or not at all, and the file that it replaces is kept.
"""

import argparse
import asyncio
import hashlib
import itertools
import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from controller.clock import SystemClock
from controller.config.clouds import CLOUDS
from controller.config.keys import VARIABLES
from controller.config.loader import DEFAULT_CONFIG, LoadedSettings, overridden, parse
from controller.config.option_types import checked
from controller.config.schema import Election, Settings
from controller.core.azure_names import fold
from controller.core.printable import printable
from controller.errors import Denied, NotDone
from controller.observability import logs
from controller.setup.discovery import DiscoveredPool, Discovery, discover
from controller.setup.participation import KEYS, ask_participation
from controller.setup.template import TemplateContent, compose
from controller.system.service_manager import MANAGER

DIRECTORY_MODE = 0o755
MODE = 0o644
"""The agent's user owns no file and must read this one. Secrets have files of their own."""
CONTAINER = "lb-drain"
CONTAINER_URL = "election.container_url"
PLACEHOLDER_URL = "https://placeholder.invalid/placeholder"
PLACEHOLDER_POOL = (
    "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/placeholder/providers"
    "/Microsoft.Network/loadBalancers/placeholder/backendAddressPools/placeholder"
)
"""Settings need a pool and a container: these are used until both are known, never contacted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitOptions:
    """The choices of the operator."""

    path: Path
    """The file to write."""
    container_url: str | None
    """Required unless `prompt`."""
    pools: tuple[str, ...]
    """Ids of the pools to manage; empty: all pools with VMs of the set."""
    prompt: bool
    """Whether to ask the operator."""
    force: bool
    """Whether to replace an existing file."""


def prepare(path: Path, *, force: bool) -> LoadedSettings:
    """Check that `path` can be written, and return settings that are enough to ask Azure.

    The settings come from the environment alone.

    Raises:
        NotDone: the file exists and `force` is off, or this user cannot write it.
        InvalidConfigError: a setting in the environment is wrong.
    """
    _check_target(path, force=force)
    content = TemplateContent(
        pools=((PLACEHOLDER_POOL, None),), values={CONTAINER_URL: PLACEHOLDER_URL}
    )
    return parse(compose(content), os.environ, path)


def init(options: InitOptions, console: Console, provisional: LoadedSettings) -> None:
    """Write the configuration. Raises ControllerError if nothing was written."""
    path, url = options.path, options.container_url
    discovery = None
    if url is None or not options.pools:
        logs.setup(logging.ERROR, as_text=True)
        with Console(stderr=True).status("querying Azure"):
            discovery = _ask_azure(provisional)
        _print_discovery(console, discovery)
    pools = _choose(options.pools, discovery)
    if url is None:
        url = _ask_for_container(_proposed_url(discovery, provisional.settings))
    values = overridden(provisional) | {CONTAINER_URL: url}
    if options.prompt and not values.keys() & set(KEYS):
        values |= ask_participation(_input)
    text = compose(TemplateContent(pools=pools, values=values, discovery=discovery))
    # The text now contains every setting of the environment, so it must load without them.
    rest = {name: os.environ[name] for name in os.environ if name not in VARIABLES}
    parse(text, rest, path)
    if options.prompt and not _confirmed(f"write {path} with {len(pools)} pools? [Y/n] "):
        raise NotDone("nothing was written")
    kept = _write(path, text, force=options.force)
    console.print(Text(printable(f"configuration written: {path}")))
    if kept:
        console.print(Text(printable(f"previous file kept: {kept}")))
    for line in _next_steps(path, url, discovery):
        console.print(Text(printable(line)), soft_wrap=True)


# --- questions ---


def _ask_azure(provisional: LoadedSettings) -> Discovery:
    question = discover(provisional.settings, environ=os.environ, clock=SystemClock())
    try:
        return asyncio.run(question)
    except Denied as error:
        raise Denied(
            f"{error}. Nothing was written. deploy/roles/README.md lists the roles that the VMs "
            "need. With --pool and --container-url, init does not query Azure",
            action=error.action,
            scope=error.scope,
            obstacle=error.obstacle,
        ) from error


def _choose(
    wanted: tuple[str, ...], discovery: Discovery | None
) -> tuple[tuple[str, DiscoveredPool | None], ...]:
    """Return the pools to manage: those on the command line, else all pools that can be managed."""
    known = {fold(pool.pool_id): pool for pool in discovery.pools} if discovery else {}
    if wanted:
        return tuple((pool_id, known.get(fold(pool_id))) for pool_id in wanted)
    chosen = tuple((pool.pool_id, pool) for pool in known.values() if not pool.basic)
    if not chosen and discovery:
        reasons = "".join(f"; {each}" for each in discovery.unlisted)
        raise NotDone(
            f"no VM of {discovery.set_id} is in a backend pool of a Standard load "
            f"balancer{reasons}. Add the VMs to a pool, or name the pools with --pool. Nothing was "
            "written"
        )
    return chosen


def _proposed_url(discovery: Discovery | None, settings: Settings) -> str:
    """Return a container URL to propose; empty if Azure was not asked.

    Names of storage accounts are unique in all of Azure, and every VM of the set must propose the
    same name: it is derived from the id of the set.
    """
    if discovery is None:
        return ""
    digest = hashlib.sha256(fold(discovery.set_id).encode()).hexdigest()
    suffix = CLOUDS[settings.azure.cloud].storage_suffix
    return f"https://lbdrain{digest[:16]}.blob.{suffix}/{CONTAINER}"


def _ask_for_container(proposed: str) -> str:
    check = checked(Election, "container_url")
    default = f" [{proposed}]" if proposed else ""
    while True:
        answer = _input(f"URL of the blob container for lease and ledger{default}: ") or proposed
        try:
            return check(answer)
        except argparse.ArgumentTypeError as error:
            print(f"the answer {error}")


def _confirmed(question: str) -> bool:
    return _input(question).casefold() in {"", "y", "yes"}


def _input(question: str) -> str:
    try:
        return input(question).strip()
    except EOFError:
        raise NotDone("no answer; nothing was written") from None


# --- output ---


def _print_discovery(console: Console, discovery: Discovery) -> None:
    title = f"this VM: {discovery.vm}   {discovery.vms} VMs in {discovery.set_id}"
    console.print(Text(printable(title)))
    for reason in discovery.unlisted:
        console.print(
            Text(printable(f"some pools can be missing from this table: {reason}")), soft_wrap=True
        )
    table = Table(
        Column("pool", overflow="fold"), "kind", "of this set", "others", "min_in_service", box=None
    )
    for pool in discovery.pools:
        floor = pool.floor(discovery.max_simultaneous)
        table.add_row(
            Text(printable("/".join(pool.pool_id.split("/")[-3::2]))),
            pool.kind.label,
            f"{pool.peers} + {len(pool.out)} out" if pool.out else str(pool.peers),
            str(pool.others),
            "not managed: Basic" if pool.basic else str(floor),
        )
    console.print(table)
    if out := sorted({name for pool in discovery.pools for name in pool.out}):
        note = f"in no pool now, and counted for min_in_service: {', '.join(out)}"
        console.print(Text(printable(note)), soft_wrap=True)


def _next_steps(path: Path, url: str, discovery: Discovery | None) -> list[str]:
    """Return the next commands, ready to copy."""
    parts = urlsplit(url)
    names = parts.path.strip("/").split("/")
    # An emulator has the account in the path, Azure in the host name.
    account = names[0] if len(names) > 1 else (parts.hostname or "").split(".", 1)[0]
    group = discovery.set_id.split("/")[4] if discovery else "GROUP"
    run = MANAGER.enable if path == DEFAULT_CONFIG else f"lb-drain run --config {quote(str(path))}"
    return [
        "Next, create the storage account and the container, if they do not exist, where you are "
        "signed in to Azure:",
        f"    az storage account create --name {quote(account)} --resource-group {quote(group)} "
        "--min-tls-version TLS1_2 --allow-blob-public-access false --allow-shared-key-access false",
        f"    az storage container create --account-name {quote(account)} "
        f"--name {quote(names[-1])} --auth-mode login",
        "Then, on every VM of the set, with this file, run the checks and start the agent:",
        f"    lb-drain doctor --config {quote(str(path))}",
        f"    {run}",
    ]


# --- the file ---


def _check_target(path: Path, *, force: bool) -> None:
    """Refuse a file that cannot be written, before any question."""
    try:
        exists = path.exists()
        nearest = next(each for each in path.absolute().parents if each.exists())
        writable = nearest.is_dir() and os.access(nearest, os.W_OK)
    except PermissionError:  # a directory above it that this user may not search
        exists = writable = False
    if exists and not force:
        raise NotDone(f"{path} exists: replace it with --force, or name another file with --config")
    if not writable:
        raise NotDone(
            f"{path} cannot be written by this user: run this command {MANAGER.as_superuser}, or "
            "name another file with --config"
        )


def _write(path: Path, text: str, *, force: bool) -> Path | None:
    """Write the file as a whole; return the copy of the file that it replaces."""
    kept = None
    try:
        _create_directory(path.parent)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        new = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                new.chmod(MODE)
                file.flush()
                os.fsync(file.fileno())
            if force and path.exists():
                kept = _unused(path)
                shutil.copy2(path, kept)
                new.replace(path)
            else:
                path.hardlink_to(new)  # fails if the file was created meanwhile
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise NotDone(f"{path} cannot be written ({error.strerror}); nothing was changed") from None
    return kept


def _create_directory(directory: Path) -> None:
    """Create the directories that are missing; the agent's user may search them at any umask."""
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        each.chmod(DIRECTORY_MODE)


def _unused(path: Path) -> Path:
    """Return the name for a copy. A file that an earlier run has kept is not overwritten."""
    names = (f"{path.name}.before{f'.{n}' if n else ''}" for n in itertools.count())
    return next(each for each in map(path.with_name, names) if not each.exists())
