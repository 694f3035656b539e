"""No request is lost on a data plane of real parts. The long form: `python -m tests.data_plane`."""

import pytest

from tests.data_plane.run import MIX, SHORT, Flows, run
from tests.support import web_servers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(web_servers.program(name) is None for name in ("haproxy", "nginx", "apache2")),
        reason="a server is missing (Debian packages haproxy, nginx and apache2-bin)",
    ),
]


@pytest.mark.parametrize(("flows", "server"), [("keep", "apache2"), ("drop", "nginx")])
async def test_maintenance_loses_no_request(flows: Flows, server: str) -> None:
    """The leader reboots and another VM freezes: every kind of client gets every answer."""
    result = await run(flows, SHORT, server=server)
    by_kind = result.counts.by_kind
    assert result.counts.losses == ()
    assert {kind: counts.lost for kind, counts in by_kind.items()} == dict.fromkeys(MIX, 0)
    assert all(counts.ok == counts.sent > 0 for counts in by_kind.values())
    assert result.unacknowledged == 0
    assert [event.split()[0] for event in result.events] == ["Reboot", "Freeze"]
    assert result.events[0].endswith("(leader)")


async def test_the_same_maintenance_without_agents_loses_requests() -> None:
    """Otherwise the zero above would show nothing."""
    result = await run("keep", (("Freeze", 0),), controller=False)
    assert result.counts.lost > 0
