"""A reload of the configuration: what it applies at run time, and that the leader stays."""

import pytest

from controller.agent.reloading import reload_text
from controller.config.in_force import Reloaded
from tests.support.in_process_set import QUICK, InProcessSet

POLICY = QUICK["policy"]


async def test_a_reload_keeps_the_lease_and_releases_a_hold(bench: InProcessSet) -> None:
    """A floor that holds a drain is lowered in the file: the VM leaves, under the same leader."""
    agent = await bench.lead("web-1", overrides={"backend_pools": {"min_in_service": 3}})
    epoch = bench.ledger()["epoch"]
    await bench.announce("web-2", notice_s=600, started_s=600)
    await bench.until("the floor holds web-2", lambda: bench.ledger().get("holds"))
    bench.config("web-1", {"backend_pools": {"min_in_service": 1}, "watch": {"timeout_s": 19}})
    agent.reload()
    await bench.until("web-2 is out", lambda: not bench.inside("web-2"))
    assert bench.ledger()["epoch"] == epoch
    (line,) = bench.logged("configuration reloaded", "WARNING")
    assert "applied: min_in_service of pool web-lb/app" in line
    assert "restart the agent to apply: watch" in line


async def test_an_invalid_file_keeps_the_configuration_in_force(bench: InProcessSet) -> None:
    """The log has every problem, the agent leads on, and a corrected file is applied."""
    agent = await bench.lead("web-1")
    bad: dict[str, dict[str, object]] = {
        "policy": {**POLICY, "lead_time_s": -1},
        "watch": {"timeout_s": "soon"},
    }
    bench.config("web-1", bad)
    agent.reload()
    await bench.until("refused", lambda: bench.logged("not reloaded", "ERROR"))
    (line,) = bench.logged("not reloaded", "ERROR")
    assert "policy.lead_time_s: must be" in line
    assert "watch.timeout_s: must be" in line
    assert bench.ledger()["leader"] == "web-1"
    bench.config("web-1", {"policy": {**POLICY, "lead_time_s": 600}})
    agent.reload()
    await bench.until("applied", lambda: bench.logged("applied: policy.lead_time_s", "INFO"))


async def test_a_channel_without_its_secret_keeps_the_configuration(bench: InProcessSet) -> None:
    """What only the start of a channel shows is a problem of the file too."""
    agent = await bench.lead("web-1")
    bench.config("web-1", channels=('kind = "webhook"\nurl_env = "NO_SUCH_VARIABLE"',))
    agent.reload()
    await bench.until("refused", lambda: bench.logged("not reloaded", "ERROR"))
    assert "notifications[0]" in bench.logged("not reloaded", "ERROR")[0]
    assert bench.ledger()["leader"] == "web-1"


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (Reloaded(applied=(), restart=()), "configuration reloaded; no setting changes"),
        (Reloaded(applied=("a", "b"), restart=()), "configuration reloaded; applied: a, b"),
        (
            Reloaded(applied=(), restart=("c",)),
            "configuration reloaded; no setting changes; restart the agent to apply: c",
        ),
    ],
)
def test_the_log_line_of_a_reload(found: Reloaded, text: str) -> None:
    """It names what is applied, and what needs a restart."""
    assert reload_text(found) == text
