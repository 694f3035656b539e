"""The doctor on web-1 of a simulated set, for tests that plant a problem first."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from controller.clock import Clock
from controller.config.loader import load
from controller.doctor.report import Finding, Report, Result
from controller.doctor.run import examine
from tests.support.in_process_set import InProcessSet

PROVIDERS = "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/web-rg/providers"
NETWORK = f"{PROVIDERS}/Microsoft.Network"
SUBNET = f"{NETWORK}/virtualNetworks/web-vnet/subnets/default"
GROUP = "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/web-rg"


class Ahead:
    """A clock that is wrong by some seconds."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock, self._ahead = clock, timedelta(seconds=seconds)

    def now(self) -> datetime:
        return self._clock.now() + self._ahead

    def monotonic(self) -> float:
        return self._clock.monotonic()


def allow_subnet_reads(bench: InProcessSet) -> None:
    """Let web-1 read subnets, which an agent does not need."""
    actions = frozenset({"Microsoft.Network/virtualNetworks/subnets/read"})
    bench.world.roles.assign("web-1", actions, GROUP)


async def run_doctor(
    bench: InProcessSet,
    *,
    edit: Callable[[str], str] = str,
    environ: Mapping[str, str] | None = None,
    ahead_s: float = 0,
) -> Report:
    """Run the doctor on web-1 with an edited configuration."""
    path = bench.config("web-1")
    path.write_text(edit(path.read_text()))
    bench.settings(path)
    return await examine(
        load(path, {}).settings,
        environ=dict(environ or {}),
        clock=Ahead(bench.clock, ahead_s),
    )


def of(report: Report, check: str, subject: str = "") -> Finding:
    """Return the one finding of a check."""
    (found,) = [each for each in report.findings if each.check == check and subject in each.subject]
    return found


def not_passed(report: Report) -> list[str]:
    return [each.title for each in report.findings if each.result is not Result.PASS]
