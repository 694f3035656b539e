"""Reads what this VM needs for its own side of a drain, and changes nothing."""

import os
from pathlib import Path

from controller.config.base import socket_address
from controller.config.schema import Settings
from controller.config.vm_side import Hook
from controller.doctor.facts import VmSideFacts
from controller.doctor.unit_sandbox import UnitSandbox, read_unit_sandbox
from controller.system.paths import DEFAULTS
from controller.vm_side.machine import reachable
from controller.vm_side.responder_client import CLOSED, ResponderAnswer, ask_responder

OPEN = 200
RUNTIME_DIRECTORY = Path(str(DEFAULTS.flag_file)).parent
"""The directory that the unit of the agent creates when it starts."""


async def read_vm_side(settings: Settings) -> VmSideFacts:
    """Return the facts about the VM on which the doctor runs."""
    found = None
    if settings.probe.listen:
        host, port = socket_address(settings.probe.listen)
        found = await ask_responder(reachable(host), port, settings.probe.path)
    sandbox = await read_unit_sandbox()
    problems = {hook.command[0]: _hook_problem(hook, sandbox) for hook in settings.hooks}
    return VmSideFacts(
        flag_problem=_flag_problem(settings.drain.flag_file, sandbox),
        hook_problems={program: problem for program, problem in problems.items() if problem},
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
    """Return why a flag file could not be created; empty if it could."""
    path = Path(flag_file)
    folder = path.parent
    if not flag_file or (folder == RUNTIME_DIRECTORY and not folder.exists()):
        return ""
    if path.is_dir():
        return f"{path} is a directory; remove it, or change [drain] flag_file"
    if not folder.is_dir():
        return f"the directory {folder} does not exist"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"the directory {folder} cannot be written"
    return sandbox.why_not_write(folder) if sandbox else ""


def _hook_problem(hook: Hook, sandbox: UnitSandbox | None) -> str:
    """Return why the program of a hook cannot run; empty if it can."""
    program = Path(hook.command[0])
    if not program.is_file():
        return "does not exist"
    if not os.access(program, os.X_OK):
        return "is not executable"
    return sandbox.why_not_run(program) if sandbox else ""
