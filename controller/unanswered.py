"""Which endpoint did not answer, which setting names it, and what to do: for people at a terminal.

An agent goes on trying and says what it waits for; a command ends, and whoever ran it has to know
whether the place was wrong or the way to it.
"""

from collections.abc import Generator
from contextlib import contextmanager
from shlex import quote

from controller.config import Loaded
from controller.errors import ControllerError, NotSent, OutcomeUnknown

_KEYS = {"imds": "azure.imds_endpoint", "blob": "election.container_url"}
_ARM = "azure.resource_manager_endpoint"


@contextmanager
def naming_the_endpoint(loaded: Loaded, config: str = "") -> Generator[None]:
    """Add to errors of the body, when nobody answered, who was asked and what to do next.

    `config` is the file that the doctor can be given, if there is one yet.
    """
    try:
        yield
    except (NotSent, OutcomeUnknown) as error:
        if error.service:
            error.args = (f"{error}. {_where(loaded, error.service)}; {_next(error, config)}",)
        raise


def _where(loaded: Loaded, service: str) -> str:
    key = _KEYS.get(service, _ARM)
    table, name = key.split(".")
    url = getattr(getattr(loaded.settings, table), name)
    return f"No answer from {url}, which is {key} ({loaded.origins[key]})"


def _next(error: ControllerError, config: str) -> str:
    if error.service == "imds":
        return (
            "the metadata service answers on Azure VMs only: run this on a VM of "
            "the set, or correct that setting"
        )
    if config:
        return (
            f"`lb-drain doctor --config {quote(config)}` says what is in the way; or correct that "
            "setting"
        )
    return (
        "name resolution, a route, a firewall or a network security group is in the way, or that "
        "setting is wrong"
    )
