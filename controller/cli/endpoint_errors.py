"""Explains to the user of a command which endpoint did not answer and what to do about it.

An agent keeps trying and reports what it waits for. A command ends, so its message has to help
to find out whether the endpoint in the configuration is wrong or the network blocks it.
"""

from collections.abc import Generator
from contextlib import contextmanager
from shlex import quote

from controller.config.loader import LoadedSettings
from controller.errors import ControllerError, NotSent, OutcomeUnknown

_KEYS = {"imds": "azure.imds_endpoint", "blob": "election.container_url"}
_ARM = "azure.resource_manager_endpoint"


@contextmanager
def explain_unreachable(loaded: LoadedSettings, config: str = "") -> Generator[None]:
    """Add the endpoint, its setting and the next step to an error without an answer.

    Args:
        config: the configuration file to run the doctor with; empty if there is none yet.
    """
    try:
        yield
    except (NotSent, OutcomeUnknown) as error:
        if error.service:
            error.args = (f"{error}. {_where(loaded, error.service)}; {_next(error, config)}",)
        raise


def _where(loaded: LoadedSettings, service: str) -> str:
    key = _KEYS.get(service, _ARM)
    table, name = key.split(".")
    url = getattr(getattr(loaded.settings, table), name)
    return f"No answer from {url}, which is {key} ({loaded.origins[key]})"


def _next(error: ControllerError, config: str) -> str:
    if error.service == "imds":
        return (
            "the metadata service answers only on Azure VMs: run this on a VM of "
            "the set, or correct the setting"
        )
    if config:
        return f"`lb-drain doctor --config {quote(config)}` finds the cause; or correct the setting"
    return (
        "name resolution, a route, a firewall or a network security group blocks the request, or "
        "the setting is wrong"
    )
