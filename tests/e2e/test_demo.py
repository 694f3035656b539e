"""`lb-drain demo`: the figures of the first screen that a newcomer sees."""

import json
import subprocess
import sys
from typing import Any


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "controller", "demo", "--vms", "2", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_maintenance_of_the_whole_set_loses_no_request() -> None:
    """No request of any kind of client is lost, although Azure drops the flows of removed members.

    All memberships are restored, and every event is acknowledged.
    """
    ran = demo("--json")
    assert ran.stdout, ran.stderr
    shown: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    assert (shown["clients"], shown["flows"]) == ("mixed", "drop")
    by_kind = shown["requests"]["by_kind"]
    assert {kind: counts["lost"] for kind, counts in by_kind.items()} == dict.fromkeys(by_kind, 0)
    assert all(counts["sent"] > 0 for counts in by_kind.values())
    assert ran.returncode == 0, ran.stderr
    assert shown["requests_without_controller"]["lost"] > 0
    assert shown["memberships_restored"] is True
    assert [each["vm"] for each in shown["events"]] == ["web-1", "web-2"]
    assert [each["acknowledged"] for each in shown["events"]] == [True, True]
    assert all(each["lead_time_s"] > 0 for each in shown["events"])
    assert any(each["was_leader"] for each in shown["events"])
    assert "requests lost" in ran.stderr, "tables go to stderr, so that stdout can be parsed"


def test_a_set_that_is_converted_under_load_loses_no_request() -> None:
    """Azure makes a scale set of the set while a VM is out; every membership is restored."""
    ran = demo("--convert", "--json")
    assert ran.stdout, ran.stderr
    shown: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    assert ran.returncode == 0, ran.stderr
    assert shown["requests"]["lost"] == 0
    assert shown["memberships_restored"] is True
    assert shown["converted"] is True
    assert [each["acknowledged"] for each in shown["events"]] == [True, True]
    assert "converted to scale set: the agents continued in it" in ran.stderr


def test_without_the_controller_requests_are_lost() -> None:
    """The same maintenance without agents loses requests, says how many, and exits with 1."""
    ran = demo("--without-controller")
    assert ran.returncode == 1, ran.stderr
    assert "Reboot of web-1" in ran.stdout
    assert "without the controller: 0 of" not in ran.stdout
    assert "run the demo without --without-controller" in " ".join(ran.stdout.split())
