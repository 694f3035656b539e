"""Reads what this VM needs for its own side of a drain, and changes nothing."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from controller.config.base import socket_address
from controller.config.schema import Settings
from controller.doctor.facts import VmSideFacts
from controller.doctor.unit_environment import differing
from controller.doctor.unit_sandbox import UnitSandbox, read_unit_sandbox
from controller.system.paths import DEFAULTS
from controller.vm_side.machine import reachable
from controller.vm_side.responder_client import CLOSED, ResponderAnswer, ask_responder

OPEN = 200
ANY_EXECUTE = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
RUNTIME_DIRECTORY = Path(str(DEFAULTS.flag_file)).parent
"""The directory that the unit of the agent creates when it starts."""


async def read_vm_side(settings: Settings, environ: Mapping[str, str]) -> VmSideFacts:
    """Return the facts about the VM on which the doctor runs."""
    found = None
    if settings.probe.listen:
        host, port = socket_address(settings.probe.listen)
        found = await ask_responder(reachable(host), port, settings.probe.path)
    sandbox = await read_unit_sandbox()
    flag_problem, unseen, problems = "", set[str](), dict[str, str]()
    try:
        flag_problem = _flag_problem(settings.drain.flag_file, sandbox)
    except PermissionError:
        unseen.add(settings.drain.flag_file)
    for program in (hook.command[0] for hook in settings.hooks):
        try:
            problems[program] = _hook_problem(program, sandbox)
        except PermissionError:
            unseen.add(program)
    return VmSideFacts(
        flag_problem=flag_problem,
        hook_problems={program: problem for program, problem in problems.items() if problem},
        unseen=frozenset(unseen),
        unit_differs=differing(sandbox.environment, environ) if sandbox else (),
        responder_answers=found is not None,
        responder_problem=_responder_problem(found, settings.probe.path) if found else "",
        responder_is_other=found is not None and found.refused is None,
    )


def _responder_problem(found: ResponderAnswer, path: str) -> str:
    if found.refused is None:
        return f"another program answers there, with HTTP status {found.status}"
    if found.status not in (OPEN, CLOSED):
        return (
            f"it answers GET {path} with {found.status}: it was started with another configuration"
        )
    return ""


def _flag_problem(flag_file: str, sandbox: UnitSandbox | None) -> str:
    """Return why a flag file could not be created; empty if it could.

    Raises:
        PermissionError: this user may see or write less than the agent, so it is not known.
    """
    path = Path(flag_file)
    folder = path.parent
    if not flag_file or (folder == RUNTIME_DIRECTORY and not _mode(folder)):
        return ""
    if stat.S_ISDIR(_mode(path)):
        return f"{path} is a directory; remove it, or change [drain] flag_file"
    if not stat.S_ISDIR(_mode(folder)):
        return f"the directory {folder} does not exist"
    forbidden = sandbox.why_not_write(folder) if sandbox else ""
    if not forbidden and not os.access(folder, os.W_OK | os.X_OK):
        if not _is_superuser():
            raise PermissionError
        return f"the directory {folder} cannot be written"
    return forbidden


def _hook_problem(command: str, sandbox: UnitSandbox | None) -> str:
    """Return why the program of a hook cannot run; empty if it can.

    Raises:
        PermissionError: this user may see or run less than the agent, so it is not known.
    """
    program = Path(command)
    mode = _mode(program)
    if not stat.S_ISREG(mode):
        return "does not exist"
    may_run = os.access(program, os.X_OK)
    if not may_run and (_is_superuser() or not mode & ANY_EXECUTE):
        return "is not executable"
    forbidden = sandbox.why_not_run(program) if sandbox else ""
    if not may_run and not forbidden:
        raise PermissionError
    return forbidden


def _mode(path: Path) -> int:
    """Return the mode of a file or directory; 0 if it does not exist.

    Raises:
        PermissionError: this user cannot see it.
    """
    try:
        return os.stat(path).st_mode
    except PermissionError:
        raise
    except (OSError, ValueError):
        return 0


def _is_superuser() -> bool:
    """Return whether what is denied to this user is denied to every user."""
    return bool(getattr(os, "geteuid", lambda: 0)() == 0)
