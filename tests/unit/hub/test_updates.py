"""The reader of a Hub's updates and runs: pages, bad replies, and the sign-in before them."""

import base64
import json
import logging
import os
from collections.abc import AsyncIterator
from datetime import UTC
from pathlib import Path

import pytest
import trustme

from controller.clock import SystemClock
from controller.core.hub_updates import HubUpdates
from controller.errors import (
    ConfigError,
    ContractViolation,
    ControllerError,
    Denied,
    NotSent,
    OutcomeUnknown,
    ServiceFault,
    Throttled,
)
from controller.hub.session import open_hub
from controller.hub.updates import MAX_UPDATES
from controller.simulator.services.faults import Effect
from tests.support.hub import SimulatedHub, simulated_hub


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[SimulatedHub]:
    async with simulated_hub(tmp_path) as hub:
        yield hub


async def read(rig: SimulatedHub, **settings: object) -> HubUpdates:
    environ = {"NO_PROXY": "*"}
    async with open_hub(rig.settings(**settings), SystemClock(), environ) as reader:
        return await reader.read()


# --- what is read ---


async def test_updates_and_runs_are_read(rig: SimulatedHub) -> None:
    """State, start, duration and the innermost step of each run of each update."""
    run_id = rig.start("M1", result="fails")
    rig.start("M2", run_s=3600)
    seen = await read(rig)
    assert [(each.name, each.state) for each in seen.updates] == [
        ("M1", "InstallationFailed"),
        ("M2", "Installing"),
    ]
    first, second = seen.runs
    assert (first.update, first.name, first.state) == ("M1", run_id, "Failed")
    assert first.step == "Restart Storage Hosts"
    assert "did not come back" in first.problem
    assert first.started_at is not None
    assert first.started_at.tzinfo is UTC
    assert first.duration_s == 0
    assert (second.state, second.problem) == ("InProgress", "")


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_every_page_is_read(rig: SimulatedHub, size: int) -> None:
    """Both lists come in pages of any size."""
    rig.server.world.settings.list_page_size = size
    for n in range(5):
        rig.start(f"M{n}")
        rig.start(f"M{n}")
    seen = await read(rig)
    assert (len(seen.updates), len(seen.runs)) == (5, 10)


@pytest.mark.parametrize("version", ["2016-05-01", "2021-07-01"])
async def test_both_versions_are_supported(rig: SimulatedHub, version: str) -> None:
    """The operator can choose the newer one."""
    rig.start()
    assert len((await read(rig, api_version=version)).runs) == 1


async def test_a_hub_without_the_version_is_asked_for_another_one(rig: SimulatedHub) -> None:
    """The refusal names the versions that it supports."""
    rig.start()
    assert len((await read(rig, api_version="2030-01-01")).runs) == 1


async def test_an_update_without_runs_has_none(rig: SimulatedHub) -> None:
    """404 for the runs of an update means that it was removed after it was listed."""
    rig.start()
    rig.fault(path_contains="updateRuns", status=404, body='{"error":{"code":"NotFound"}}')
    assert (await read(rig)).runs == ()


# --- bad replies: each fails the poll ---


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"status": 401, "body": '{"error":{"code":"ExpiredAuthenticationToken"}}'}, Denied),
        ({"status": 403, "body": '{"error":{"code":"AuthorizationFailed"}}'}, Denied),
        ({"status": 404, "body": '{"error":{"code":"ResourceGroupNotFound"}}'}, ControllerError),
        ({"status": 429, "headers": (("Retry-After", "30"),)}, Throttled),
        ({"status": 500}, ServiceFault),
        ({"status": 503, "body": "<html>down</html>"}, ServiceFault),
        ({"status": 200, "body": "not JSON"}, ContractViolation),
        ({"status": 200, "body": "[]"}, ContractViolation),
        ({"status": 200, "body": "{}"}, ContractViolation),
        ({"status": 200, "body": '{"value":{}}'}, ContractViolation),
        ({"status": 200, "body": '{"value":[{"name":7}]}'}, ContractViolation),
        ({"status": 200, "body": '{"value":[{"name":"a/.."}]}'}, ContractViolation),
        ({"status": 200, "body": '{"value":[{"name":"a","properties":[]}]}'}, ContractViolation),
        ({"status": 200, "body": '{"value":[{"properties":{}}]}'}, ContractViolation),
        ({"status": 200, "body": '{"value":' + "[" * 90 + "]" * 90 + "}"}, ContractViolation),
        (
            {"status": 200, "body": '{"value":[],"nextLink":"https://example.com/next"}'},
            ContractViolation,
        ),
        ({"effect": Effect.GARBAGE}, ContractViolation),
        ({"effect": Effect.OVERSIZED}, ContractViolation),
        ({"effect": Effect.EMPTY_200}, ContractViolation),
        ({"effect": Effect.RESET_BEFORE}, ControllerError),
    ],
    ids=str,
)
async def test_a_bad_reply_fails_the_poll(
    rig: SimulatedHub, fault: dict[str, object], error: type[ControllerError]
) -> None:
    """Nothing is read from a reply that cannot be understood completely."""
    rig.start()
    rig.fault(**{"path_contains": "updateLocations", **fault})  # type: ignore[arg-type]
    with pytest.raises(error) as caught:
        await read(rig)
    assert len(str(caught.value)) < 2000


async def test_a_bad_list_of_runs_fails_the_poll(rig: SimulatedHub) -> None:
    """Without the runs of one update, the newest run is not known."""
    rig.start()
    rig.fault(path_contains="updateRuns", status=500)
    with pytest.raises(ServiceFault, match="update run list"):
        await read(rig)


async def test_a_list_of_too_many_updates_fails_the_poll(rig: SimulatedHub) -> None:
    """One poll must not become thousands of requests."""
    entries = ",".join(f'{{"name":"M{n}","properties":{{}}}}' for n in range(MAX_UPDATES + 1))
    rig.fault(path_contains="updateLocations", status=200, body=f'{{"value":[{entries}]}}')
    with pytest.raises(ContractViolation, match="has 501 entries"):
        await read(rig)


async def test_a_state_of_megabytes_is_cut(rig: SimulatedHub) -> None:
    """It would fill the state file."""
    rig.start()
    run = f'{{"name":"r1","properties":{{"state":"{"x" * 1_000_000}"}}}}'
    rig.fault(path_contains="updateRuns", status=200, body=f'{{"value":[{run}]}}')
    assert len((await read(rig)).runs[0].state) < 200


async def test_a_list_that_leads_back_to_itself_ends(rig: SimulatedHub) -> None:
    """A next link that was followed before is an error, not an endless loop."""
    path = f"{rig.server.hub_url}/subscriptions/x/updateLocations/updates?again"
    rig.fault(
        path_contains="updateLocations",
        status=200,
        body=json.dumps({"value": [], "nextLink": path}),
    )
    with pytest.raises(ContractViolation, match="page that was read"):
        await read(rig)


@pytest.mark.parametrize(
    "progress",
    ['"broken"', '{"steps":7}', '{"steps":[{"status":[]}]}', '{"status":"Error","name":8}'],
)
async def test_a_progress_that_cannot_be_read_is_left_out(rig: SimulatedHub, progress: str) -> None:
    """It only explains a state, and must not hide one."""
    rig.start()
    run = f'{{"name":"r1","properties":{{"state":"Succeeded","progress":{progress}}}}}'
    rig.fault(path_contains="updateRuns", status=200, body=f'{{"value":[{run}]}}')
    (found,) = (await read(rig)).runs
    assert (found.state, found.step) == ("Succeeded", "")


@pytest.mark.parametrize("written", ['"yesterday"', '""', "null", '"0001-01-01T00:00:00+14:00"'])
async def test_a_start_that_is_no_time_is_unknown(rig: SimulatedHub, written: str) -> None:
    """Also one that is outside the calendar in UTC."""
    rig.start()
    run = f'{{"name":"r1","properties":{{"state":"InProgress","timeStarted":{written}}}}}'
    rig.fault(path_contains="updateRuns", status=200, body=f'{{"value":[{run}]}}')
    assert (await read(rig)).runs[0].started_at is None


# --- sign-in ---


async def test_a_token_of_entra_id(rig: SimulatedHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same secret, with the paths of Entra ID; its certificate is one that the host trusts."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(rig.server.ca_file))
    rig.start()
    seen = await read(rig, tenant=rig.server.world.tenant)
    assert len(seen.runs) == 1


@pytest.mark.parametrize("tenant", ["adfs", ""])
async def test_a_token_by_certificate(
    rig: SimulatedHub, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With AD FS and with Entra ID, whose signatures and thumbprints differ."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(rig.server.ca_file))
    issued = trustme.CA(key_type=trustme.KeyType.RSA).issue_cert(
        "watch.example", key_type=trustme.KeyType.RSA
    )
    pem = rig.directory / "watch.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(pem)
    pem.chmod(0o600)
    rig.start()
    seen = await read(
        rig,
        tenant=tenant or rig.server.world.tenant,
        secret_file="",
        certificate_file=str(pem),
    )
    assert len(seen.runs) == 1


async def test_the_environment_does_not_redirect_the_sign_in(
    rig: SimulatedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The authority is the configured one."""
    monkeypatch.setenv("AZURE_REGIONAL_AUTHORITY_NAME", "westus")
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://127.0.0.1:1")
    async with open_hub(rig.settings(), SystemClock(), os.environ) as reader:
        assert await reader.read() == HubUpdates(updates=(), runs=())


async def test_a_ca_file_that_is_none(rig: SimulatedHub) -> None:
    """A problem of the configuration, before any request."""
    with pytest.raises(ConfigError, match=r"ca_file: .* cannot be used"):
        await read(rig, ca_file=str(rig.secret))


async def test_a_wrong_secret_is_denied_and_not_repeated(rig: SimulatedHub) -> None:
    """The message names what to check."""
    rig.secret.write_text("C4NARY")
    with pytest.raises(Denied, match="was refused") as caught:
        await read(rig)
    assert "C4NARY" not in str(caught.value)


async def test_a_secret_that_was_rotated_is_read_again(rig: SimulatedHub) -> None:
    """A refusal ends one poll, not the watch; a file that is missing then changes nothing."""
    async with open_hub(rig.settings(), SystemClock(), os.environ) as reader:
        rig.hub.secret = "another"
        for _ in range(2):
            with pytest.raises(Denied, match="was refused"):
                await reader.read()
            rig.secret.unlink(missing_ok=True)
        rig.secret.write_text("another")
        rig.secret.chmod(0o600)
        with pytest.raises(Denied, match="was refused"):
            await reader.read()
        assert await reader.read() == HubUpdates(updates=(), runs=())


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_a_failing_identity_provider_is_no_refusal(rig: SimulatedHub, status: int) -> None:
    """It can answer the next poll."""
    body = '{"error":"temporarily_unavailable","error_description":"later"}'
    headers = (("content-type", "application/json"),)
    rig.fault(path_contains="oauth2", status=status, body=body, headers=headers)
    with pytest.raises(NotSent, match="sign-in at"):
        await read(rig)


@pytest.mark.parametrize(
    "fault",
    [
        {"effect": Effect.RESET_BEFORE, "path_contains": "oauth2"},
        {"effect": Effect.GARBAGE, "path_contains": "oauth2"},
        {"effect": Effect.RESET_BEFORE, "path_contains": "openid"},
        {"status": 404, "path_contains": "openid"},
    ],
    ids=str,
)
async def test_no_token_is_no_poll(rig: SimulatedHub, fault: dict[str, object]) -> None:
    """Whatever the identity provider does, the error names the sign-in."""
    rig.fault(**fault)  # type: ignore[arg-type]
    with pytest.raises((NotSent, Denied, OutcomeUnknown), match="sign-in at"):
        await read(rig)


async def test_a_token_is_used_until_the_hub_refuses_it(rig: SimulatedHub) -> None:
    """An update can make all tokens invalid: the poll after a refusal signs in again."""
    asked: list[str] = []
    rig.server.observers.append(lambda request, _: asked.append(request.path))
    rig.start()
    async with open_hub(rig.settings(), SystemClock(), {}) as reader:
        await reader.read()
        await reader.read()
        assert asked.count("/adfs/oauth2/token") == 1
        rig.fault(path_contains="updateLocations", status=401, times=1)
        with pytest.raises(Denied):
            await reader.read()
        assert len((await reader.read()).runs) == 1
    assert asked.count("/adfs/oauth2/token") == 2


async def test_the_audience_of_the_token_is_that_of_the_scope(rig: SimulatedHub) -> None:
    """A wrong scope is refused by the Hub, not by the sign-in."""
    with pytest.raises(Denied, match="InvalidAuthenticationToken"):
        await read(rig, scope="https://other.example/.default")


@pytest.mark.parametrize("key", ["secret_file", "certificate_file"])
@pytest.mark.parametrize("content", [None, b"", b"  \n", b"x" * 100_000])
async def test_a_missing_secret_is_a_problem_of_the_configuration(
    rig: SimulatedHub, key: str, content: bytes | None
) -> None:
    """Missing, empty or too long: the message names key and file."""
    path = rig.directory / "other"
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    with pytest.raises(ConfigError, match=f"update_watch.{key}: {path}"):
        await read(rig, **{"secret_file": "", key: str(path)})


@pytest.mark.parametrize(
    "content",
    [b"C4NARY", base64.b64encode(os.urandom(60)), b"\xff\xfe\x00"],
    ids=["text", "random", "binary"],
)
async def test_a_certificate_that_is_none(rig: SimulatedHub, content: bytes) -> None:
    """The file is not repeated."""
    path = rig.directory / "other.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        await read(rig, secret_file="", certificate_file=str(path))
    assert content.decode(errors="replace") not in str(caught.value)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, 0), (0o640, 0), (0o604, 1), (0o666, 1)])
async def test_a_secret_that_others_can_read_is_reported(
    rig: SimulatedHub, mode: int, warned: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A group is how the owner lets a service read it; all users of the host are too many."""
    rig.secret.chmod(mode)
    with caplog.at_level(logging.WARNING, logger="lbdrain.hub"):
        await read(rig)
    assert caplog.text.count("chmod o-rwx") == warned
    assert rig.hub.secret not in caplog.text
