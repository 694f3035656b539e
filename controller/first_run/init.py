"""`lb-drain init`: what was found, what was said, and what remains to be asked, as one file.

Nothing is written before everything is known and the text is one that an agent would load; then it
is there as a whole or not at all, and what was there before is kept.
"""

import argparse
import asyncio
import hashlib
import logging
import os
import shutil
import tempfile
from pathlib import Path
from shlex import quote
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from controller import logs
from controller.clock import SystemClock
from controller.config import ENVIRONMENT_PREFIX, Loaded, overridden, parse
from controller.core.model import fold
from controller.errors import Denied, NotDone
from controller.first_run.commands import checked
from controller.first_run.discover import Found, FoundPool, discover
from controller.first_run.template import KINDS, Content, compose
from controller.settings import Election, Settings
from controller.unanswered import naming_the_endpoint

MODE = 0o644
"""The agent runs as a user that owns nothing and must read it; secrets have files of their own."""
CONTAINER = "lb-drain"
CONTAINER_URL = "election.container_url"
STAND_IN_URL = "https://stand-in.invalid/stand-in"
STAND_IN_POOL = (
    "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/stand-in/providers"
    "/Microsoft.Network/loadBalancers/stand-in/backendAddressPools/stand-in"
)
"""Settings need a pool and a container: these stand in until they are known, and are not asked."""
_BLOB_SUFFIXES = {
    "AzurePublicCloud": "core.windows.net",
    "AzureUSGovernment": "core.usgovcloudapi.net",
    "AzureChinaCloud": "core.chinacloudapi.cn",
}


def init(options: argparse.Namespace, console: Console) -> int:
    """Write the configuration. Raises ControllerError when nothing was written."""
    path: Path = options.config
    _check_target(path, force=options.force)
    provisional = _provisional(path)
    values = overridden(provisional)
    settings = provisional.settings
    url = options.container_url or values.get(CONTAINER_URL)
    if url is None and options.yes:
        options.refuse(
            "--container-url is needed where nobody is asked: the blob container for lease and "
            "ledger, which the agents do not create"
        )
    found = None
    if url is None or not options.pool:
        logs.setup(logging.ERROR)
        with Console(stderr=True).status("asking Azure"):
            found = _ask_azure(provisional)
        _show(console, found)
    pools = _choose(options.pool, found)
    if url is None:
        url = _ask_for_container(_suggestion(found, settings))
    text = compose(Content(pools=pools, values=values | {CONTAINER_URL: url}, found=found))
    # Whatever the environment says of settings is in the text now.
    rest = {
        name: os.environ[name] for name in os.environ if not name.startswith(ENVIRONMENT_PREFIX)
    }
    parse(text, rest, path)
    if not options.yes and not _agreed(f"write {path} with {len(pools)} pools? [Y/n] "):
        raise NotDone("nothing was written")
    kept = _write(path, text, force=options.force)
    console.print(Text(_plain(f"written: {path}")))
    if kept:
        console.print(Text(_plain(f"what was there before: {kept}")))
    for line in _next_steps(path, str(url), options.default_config, found):
        console.print(Text(_plain(line)), soft_wrap=True)
    return 0


# --- finding out ---


def _provisional(path: Path) -> Loaded:
    """Return settings that are good for asking Azure, from the environment alone."""
    content = Content(pools=((STAND_IN_POOL, None),), values={CONTAINER_URL: STAND_IN_URL})
    return parse(compose(content), os.environ, path)


def _ask_azure(provisional: Loaded) -> Found:
    question = discover(provisional.settings, environ=os.environ, clock=SystemClock())
    try:
        with naming_the_endpoint(provisional):
            return asyncio.run(question)
    except Denied as error:
        raise Denied(
            f"{error}. Nothing was written. Which roles the VMs need is told in "
            "deploy/roles/README.md; with --pool and --container-url Azure is not asked",
            action=error.action,
            scope=error.scope,
        ) from error


def _choose(wanted: list[str], found: Found | None) -> tuple[tuple[str, FoundPool | None], ...]:
    """Return the pools to manage: those that were named, or all that can be."""
    known = {fold(pool.pool_id): pool for pool in found.pools} if found else {}
    if wanted:
        return tuple((pool_id, known.get(fold(pool_id))) for pool_id in wanted)
    chosen = tuple((pool.pool_id, pool) for pool in known.values() if not pool.basic)
    if not chosen and found:
        why = "".join(f"; {each}" for each in found.unlisted)
        raise NotDone(
            f"no VM of {found.availability_set_id} is in a backend pool of a Standard load "
            f"balancer{why}. Put them into one, or name the pools with --pool; nothing was written"
        )
    return chosen


def _suggestion(found: Found | None, settings: Settings) -> str:
    """Return a URL to propose: names of storage accounts are unique in all of Azure, and every VM
    of the set has to propose the same."""
    if found is None:
        return ""
    digest = hashlib.sha256(fold(found.availability_set_id).encode()).hexdigest()
    suffix = _BLOB_SUFFIXES[settings.azure.cloud]
    return f"https://lbdrain{digest[:16]}.blob.{suffix}/{CONTAINER}"


def _ask_for_container(suggestion: str) -> str:
    check = checked(Election, "container_url")
    shown = f" [{suggestion}]" if suggestion else ""
    while True:
        said = _input(f"URL of the blob container for lease and ledger{shown}: ") or suggestion
        try:
            return check(said)
        except argparse.ArgumentTypeError as error:
            print(f"that {error}")


def _agreed(question: str) -> bool:
    return _input(question).casefold() in {"", "y", "yes"}


def _input(question: str) -> str:
    try:
        return input(question).strip()
    except EOFError:
        raise NotDone("no answer; nothing was written") from None


# --- telling ---


def _show(console: Console, found: Found) -> None:
    console.print(
        Text(_plain(f"this VM: {found.vm}   {found.vms} VMs in {found.availability_set_id}"))
    )
    for each in found.unlisted:
        console.print(Text(_plain(f"pools may be missing here: {each}")), soft_wrap=True)
    table = Table(
        Column("pool", overflow="fold"), "kind", "of this set", "others", "min_in_service", box=None
    )
    names = [pool.pool_id.split("/") for pool in found.pools]
    for name, pool in zip(names, found.pools, strict=True):
        floor = "left out: Basic" if pool.basic else str(pool.floor(found.at_once))
        table.add_row(
            Text(_plain("/".join(name[-3::2]))),
            KINDS[pool.kind],
            str(pool.ours),
            str(pool.others),
            floor,
        )
    console.print(table)


def _plain(text: str) -> str:
    """Return what a terminal only shows: names come from Azure, and could be anything."""
    return "".join(each if each.isprintable() else "?" for each in text)


def _next_steps(path: Path, url: str, installed: Path, found: Found | None) -> list[str]:
    """Return what to do now, ready to copy."""
    parts = urlsplit(url)
    names = parts.path.strip("/").split("/")
    # Emulators have the account in the path, Azure in the host.
    account = names[0] if len(names) > 1 else (parts.hostname or "").split(".", 1)[0]
    group = found.availability_set_id.split("/")[4] if found else "GROUP"
    run = (
        "systemctl enable --now lb-drain"
        if path == installed
        else f"lb-drain run --config {quote(str(path))}"
    )
    return [
        "next, where you are signed in to Azure, unless they are there: account and container",
        f"    az storage account create --name {quote(account)} --resource-group {quote(group)} "
        "--min-tls-version TLS1_2 --allow-blob-public-access false --allow-shared-key-access false",
        f"    az storage container create --account-name {quote(account)} "
        f"--name {quote(names[-1])} --auth-mode login",
        "then, on every VM of the set, with this file: what is missing, and the agent",
        f"    lb-drain doctor --config {quote(str(path))}",
        f"    {run}",
    ]


# --- writing ---


def _check_target(path: Path, *, force: bool) -> None:
    """Refuse before anything is asked what would be refused after it."""
    if path.exists() and not force:
        raise NotDone(f"{path} is there already: --force replaces it, --config names another file")
    nearest = next(each for each in path.absolute().parents if each.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise NotDone(
            f"{path} cannot be written by this user: run this as root, or name another file with "
            "--config"
        )


def _write(path: Path, text: str, *, force: bool) -> Path | None:
    """Make the file appear as a whole; return where the one it replaces is kept."""
    kept = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        new = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                os.fchmod(file.fileno(), MODE)
                file.flush()
                os.fsync(file.fileno())
            if force and path.exists():
                kept = path.with_name(f"{path.name}.before")
                shutil.copy2(path, kept)
                new.replace(path)
            else:
                path.hardlink_to(new)  # refuses what came into being meanwhile
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise NotDone(f"{path} cannot be written ({error.strerror}); nothing was changed") from None
    return kept
