"""The simulated Azure Stack Hub: states of runs, sign-in, times without an API, and the control."""

import json
from typing import TYPE_CHECKING, Any

import pytest

from controller.simulator.app import control
from controller.simulator.services import api
from controller.simulator.services.faults import FaultBook
from controller.simulator.services.http_values import Delivery, Reply, Request, Service
from controller.simulator.services.hub import status_xml
from controller.simulator.world.builder import build_world
from controller.simulator.world.hub import AUDIENCE, CLIENT_ID

if TYPE_CHECKING:
    from controller.simulator.world.world import World

NOW = 1_900_000_000.0
PATH = (
    "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/System.east/providers"
    "/Microsoft.Update.Admin/updateLocations/east/updates"
)


class Rig:
    """A world whose time the test moves."""

    def __init__(self) -> None:
        self.world: World = build_world(now=NOW, vms=1)
        self.faults = FaultBook()
        self.now = NOW

    def control(self, method: str, path: str, **body: object) -> tuple[int, dict[str, Any]]:
        reply = control.handle(
            self.world,
            self.faults,
            method=method,
            path=path,
            query={},
            body=json.dumps(body).encode(),
            now=self.now,
        )
        return reply.status, json.loads(reply.body)

    def send(self, method: str, path: str, **more: Any) -> Reply:
        given: dict[str, Any] = {
            "query": (("api-version", "2016-05-01"),),
            "headers": {
                "host": "hub.example",
                "authorization": f"Bearer {self.world.token(CLIENT_ID, AUDIENCE)}",
            },
            **more,
        }
        request = Request(service=Service.HUB, method=method, path=path, **given)
        return api.handle(self.world, self.faults, request, self.now)

    def states(self, name: str = "M1") -> list[str]:
        body = json.loads(self.send("GET", f"{PATH}/{name}/updateRuns").body)
        return [each["properties"]["state"] for each in body["value"]]

    def sign_in(self, path: str, **form: str) -> Reply:
        body = "&".join(f"{key}={value}" for key, value in form.items()).encode()
        return self.send("POST", path, headers={"host": "hub.example"}, body=body)


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize(
    ("result", "states"),
    [
        ("succeeds", ["InProgress", "Succeeded"]),
        ("fails", ["InProgress", "Failed"]),
        ("endless", ["InProgress", "InProgress"]),
    ],
)
def test_a_run_ends_as_the_control_requests(rig: Rig, result: str, states: list[str]) -> None:
    """By the clock alone."""
    assert rig.control("POST", "/updates", name="M1", run_s=30, result=result)[0] == 200
    seen = rig.states()
    rig.now += 30
    assert [*seen, *rig.states()] == states


def test_a_failed_run_is_resumed_or_followed_by_another(rig: Rig) -> None:
    """Both happen on a Hub."""
    rig.control("POST", "/updates", name="M1", run_s=0, result="fails")
    _, resumed = rig.control("POST", "/updates", name="M1", run_s=0, result="fails", resume=True)
    _, second = rig.control("POST", "/updates", name="M1", run_s=5)
    assert resumed["run"] != second["run"]
    assert rig.states() == ["Failed", "InProgress"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({}, "name must be text"),
        ({"name": "a/b"}, "name must be the name of an update"),
        ({"name": "M1", "result": "explodes"}, "result must be one of"),
        ({"name": "M1", "run_s": "long"}, "run_s must be a number"),
        ({"name": "M1", "outage_s": 5}, "outage_s needs outage_after_s"),
        ({"name": "M1", "resume": True}, "has no failed run to resume"),
        ({"name": "M1", "speed": 2}, "unknown field 'speed'"),
        ({"name": "M0"}, "update M0 is in progress"),
    ],
)
def test_a_wrong_control_request_is_refused(
    rig: Rig, body: dict[str, object], problem: str
) -> None:
    """With one sentence, and no run is started."""
    rig.control("POST", "/updates", name="M0", result="endless")
    status, answer = rig.control("POST", "/updates", **body)
    assert status == 400
    assert problem in answer["error"]


@pytest.mark.parametrize(("outage_s", "back"), [(None, False), (20, True)])
def test_the_api_can_be_gone(rig: Rig, outage_s: float | None, back: bool) -> None:
    """For good or for a while; the sign-in still works. The next update brings it back."""
    rig.control("POST", "/updates", name="M1", outage_after_s=10, outage_s=outage_s)
    assert rig.send("GET", PATH).delivery is Delivery.NORMAL
    rig.now += 10
    assert rig.send("GET", PATH).delivery is Delivery.RESET
    form = {"client_id": CLIENT_ID, "client_secret": rig.world.hub.secret, "scope": AUDIENCE}
    assert rig.sign_in("/adfs/oauth2/token", **form).status == 200
    rig.now += 20
    assert (rig.send("GET", PATH).delivery is Delivery.NORMAL) is back
    rig.control("POST", "/updates", name="M2")
    assert rig.send("GET", PATH).delivery is Delivery.NORMAL


@pytest.mark.parametrize("form", [{}, {"client_secret": "x"}, {"client_assertion": "a.b.c"}])
def test_a_wrong_secret_gets_no_token(rig: Rig, form: dict[str, str]) -> None:
    """Neither text nor an assertion that is none."""
    assert rig.sign_in("/adfs/oauth2/token", client_id=CLIENT_ID, **form).status == 401


def test_the_paths_of_entra_id_and_ad_fs_differ(rig: Rig) -> None:
    """AD FS has no v2.0."""
    for tenant, path in (("adfs", "oauth2"), (rig.world.tenant, "oauth2/v2.0")):
        found = json.loads(rig.send("GET", f"/{tenant}/.well-known/openid-configuration").body)
        assert found["token_endpoint"] == f"https://hub.example/{tenant}/{path}/token"
    assert rig.sign_in("/adfs/oauth2/v2.0/token").status == 401  # no sign-in: a request of the Hub


@pytest.mark.parametrize(
    ("method", "path", "more", "status"),
    [
        ("GET", PATH, {"headers": {}}, 401),
        ("GET", PATH, {"query": (("api-version", "2099-01-01"),)}, 400),
        ("PUT", PATH, {}, 405),
        ("GET", PATH + "/M9/updateRuns", {}, 404),
        ("GET", PATH.replace("east", "west"), {}, 404),
    ],
)
def test_other_requests_are_refused(
    rig: Rig, method: str, path: str, more: dict[str, object], status: int
) -> None:
    """As Resource Manager refuses them."""
    assert rig.send(method, path, **more).status == status


def test_a_token_for_another_audience_is_refused(rig: Rig) -> None:
    """The scope has to name the administrator endpoint."""
    token = rig.world.token(CLIENT_ID, "https://management.azure.com")
    assert rig.send("GET", PATH, headers={"authorization": f"Bearer {token}"}).status == 401


def test_a_privileged_endpoint_reports_the_newest_run(rig: Rig) -> None:
    """As XML, also while the API is gone."""
    assert 'Status="Success"' in status_xml(rig.world, rig.now)
    rig.control("POST", "/updates", name="M1", run_s=10, result="fails", outage_after_s=0)
    assert 'Status="InProgress"' in rig.control("GET", "/updates/status")[1]["xml"]
    rig.now += 10
    assert 'Status="Error"' in rig.control("GET", "/updates/status")[1]["xml"]
