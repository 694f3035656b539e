"""Which variables the unit of the agent sets otherwise than the shell of a command. Pure.

A drop-in of the unit (`systemctl edit lb-drain`) is not part of the environment of a shell: a
command there works by other settings than the agent. Values are never shown: they can be secret.
"""

import re
import shlex
from collections.abc import Iterable, Mapping

from controller.azure.http.session import proxy_variables
from controller.config.keys import VARIABLES


def parse_environment(text: str) -> Mapping[str, str]:
    """Return the variables that `systemctl show` prints as `Environment`."""
    # systemd also escapes these two within its double quotes, which shlex does not know.
    plain = re.sub(r"\\([$`])", r"\1", text)
    try:
        assignments = shlex.split(plain)
    except ValueError:
        return {}
    return {name: value for name, _, value in (each.partition("=") for each in assignments)}


def differing(unit: Mapping[str, str], shell: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of settings and proxies that unit and shell do not set alike."""
    ours, others = _relevant(shell), _relevant(unit)
    return tuple(sorted(key for key in {*ours, *others} if ours.get(key) != others.get(key)))


def advice(names: Iterable[str]) -> tuple[str, ...]:
    """Return what makes agent and commands work by the same settings."""
    wanted = tuple(names)
    settings = [each for each in wanted if each in VARIABLES]
    proxies = [each for each in wanted if each not in VARIABLES]
    found: tuple[str, ...] = ()
    if settings:
        found += (
            f"set in the configuration file what {', '.join(settings)} sets, and remove the "
            "variable: the agent and every command read the file",
        )
    if proxies:
        found += (f"set {', '.join(proxies)} alike in the unit (systemctl edit) and in the shell",)
    return found


def _relevant(environ: Mapping[str, str]) -> dict[str, str]:
    """Return settings, and proxies by one name: both spellings have the same effect."""
    found = {name: environ[name] for name in VARIABLES if name in environ}
    return found | {name.upper(): environ[name] for name in reversed(proxy_variables(environ))}
