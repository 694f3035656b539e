"""The doctor's findings about VMs that close: probes, flag file, hooks and responder."""

import asyncio
import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.azure.rule_health_bodies import parse_rules
from controller.config.schema import Settings
from controller.doctor.facts import VmSideFacts
from controller.doctor.report import Finding, Result
from controller.doctor.run import run_checks
from controller.doctor.vm_side import read_vm_side
from tests.support.doctor_facts import APP, LB, VMS, balancer_of, healthy, judged, read

LISTEN = "0.0.0.0:9810"
FLAG = "/run/lb-drain/draining"
UPDATE = "az network lb probe update --resource-group web --lb-name lb --name http"
GOOD = {"protocol": "Http", "port": 9810, "requestPath": "/", "intervalInSeconds": 5}


def configured(*, listen: str = LISTEN, **tables: Any) -> Settings:
    """Return the settings of a set whose VMs close, with a responder."""
    policy = {"close": True, "connection_drain_s": 30, **tables.pop("policy", {})}
    return Settings.model_validate(
        {
            "backend_pools": [{"id": APP}],
            "election": {"container_url": "https://account.blob.core.windows.net/lb-drain"},
            "policy": policy,
            "probe": {"listen": listen, **tables.pop("probe", {})},
            **tables,
        }
    )


def probed(**properties: Any) -> dict[str, Any]:
    """Return a load balancer whose rule has a probe with these properties."""
    body = balancer_of(*VMS)
    body["properties"]["loadBalancingRules"][0]["id"] = f"{LB}/loadBalancingRules/rule"
    probe = {"id": f"{LB}/probes/http", "name": "http", "properties": {**GOOD, **properties}}
    body["properties"]["probes"] = [{"name": "other"}, probe]
    return {LB.casefold(): read(body)}


def of_probe(settings: Settings | None = None, **properties: Any) -> Finding:
    """Return the finding about the probe."""
    return judged(
        "closing-probe",
        settings=settings or configured(),
        load_balancers=probed(**properties),
    )


# --- probes ---


def test_a_probe_that_asks_the_responder_passes() -> None:
    """HTTP, the port and path of the responder, and quick enough."""
    found = of_probe(probeThreshold=2)
    assert found.result is Result.PASS
    assert found.message == "Http port 9810: notices a closed VM within 10 s"


@pytest.mark.parametrize(
    ("properties", "problem", "options"),
    [
        ({"port": 80}, "asks port 80, and [probe] listen is port 9810", ""),
        ({"requestPath": "/health"}, "asks for /health, and [probe] path is /", ""),
        ({"protocol": "Tcp"}, "a TCP probe finds a closed VM healthy", ""),
        ({"protocol": "Https"}, "asks over HTTPS, and the responder answers HTTP", ""),
        ({"protocol": "Tcp", "port": 80}, "port 80, and [probe] listen is port 9810", ""),
    ],
)
def test_a_probe_that_does_not_ask_the_responder_is_no_evidence(
    properties: dict[str, Any], problem: str, options: str
) -> None:
    """One command corrects protocol, port and path."""
    found = of_probe(**properties)
    assert found.result is Result.WARN
    assert problem in found.message
    assert found.fix == (f"{UPDATE} --protocol Http --port 9810 --path /{options}",)


@pytest.mark.parametrize("path", ["/lb", "lb"])
def test_the_path_is_compared_as_the_load_balancer_asks_for_it(path: str) -> None:
    """Azure stores a path with or without its first slash."""
    assert of_probe(configured(probe={"path": "/lb"}), requestPath=path).result is Result.PASS


def test_where_nothing_else_takes_a_vm_out_no_evidence_is_a_failure() -> None:
    """With mechanism = "probe" such a VM is never out."""
    settings = configured(policy={"mechanism": "probe"})
    assert of_probe(settings, port=80).result is Result.FAIL
    assert of_probe(settings).result is Result.PASS


def test_where_nothing_counts_probes_the_health_of_rules_is_needed() -> None:
    """With mechanism = "probe" the answer of the application alone proves nothing."""
    settings = configured(listen="", policy={"mechanism": "probe"})
    found = of_probe(settings, port=8080, requestPath="/healthz")
    assert found.result is Result.WARN
    assert "a VM that closes is held" in found.message
    assert found.fix[0].startswith('listen = "0.0.0.0:9810" in [probe]')
    assert "deploy/roles/rule-health.json" in found.fix[1]


def test_without_a_responder_the_application_answers() -> None:
    """An HTTP probe of the application is right; a TCP probe cannot be answered with 503."""
    settings = configured(listen="")
    assert of_probe(settings, port=8080, requestPath="/healthz").result is Result.PASS
    found = of_probe(settings, port=8080, protocol="Tcp", requestPath=None)
    assert found.result is Result.WARN
    command, _, note = found.fix[0].partition("  # ")
    assert command == f"{UPDATE} --protocol Http --port 8080 --path /"
    assert "503 while the flag file exists" in note


@pytest.mark.parametrize(
    ("interval_s", "threshold", "drain_s", "options"),
    [
        (15, 3, 30, " --interval 5 --probe-threshold 2"),
        (60, 1, 30, " --interval 5 --probe-threshold 2"),
        (5, 10, 30, " --interval 5 --probe-threshold 2"),
        (15, 1, 10, " --interval 5 --probe-threshold 2"),
        (15, 1, 9, " --interval 5 --probe-threshold 1"),
        (15, 2, 30, None),
    ],
)
def test_a_probe_has_to_notice_within_the_connection_drain(
    interval_s: int, threshold: int, drain_s: float, options: str | None
) -> None:
    """Interval times threshold is the time until the load balancer sends nothing new."""
    settings = configured(policy={"connection_drain_s": drain_s})
    found = of_probe(settings, intervalInSeconds=interval_s, probeThreshold=threshold)
    assert found.fix == (() if options is None else (UPDATE + options,))


def test_the_runbook_recommends_the_same_probe() -> None:
    """The command of the runbook has the interval and threshold that the doctor prints."""
    runbook = (Path(__file__).parents[3] / "deploy/README.md").read_text()
    found = of_probe(intervalInSeconds=60)
    assert found.fix[0].removeprefix(UPDATE) in runbook


def test_a_connection_drain_that_no_probe_can_keep() -> None:
    """Azure's shortest interval is 5 s."""
    found = of_probe(configured(policy={"connection_drain_s": 2}))
    assert found.fix[-1] == "connection_drain_s = 5 in [policy]"


def test_all_down_must_not_mean_all_up() -> None:
    """Then a 503 of every member means nothing; the Azure CLI has no option for it."""
    found = of_probe(noHealthyBackendsBehavior="AllProbedUp")
    assert found.result is Result.WARN
    assert "AllProbedUp" in found.message
    assert found.fix[0].startswith(f"az resource update --ids {LB} --api-version ")
    assert "properties.probes[1].noHealthyBackendsBehavior=AllProbedDown" in found.fix[0]
    assert of_probe(noHealthyBackendsBehavior="AllProbedDown").result is Result.PASS


def test_a_probe_is_reported_once() -> None:
    """Two rules that share a probe are corrected by one command."""
    body = balancer_of(*VMS)
    (rule,) = body["properties"]["loadBalancingRules"]
    body["properties"]["loadBalancingRules"] = [
        {**rule, "name": name, "id": f"{LB}/loadBalancingRules/{name}"} for name in ("a", "b")
    ]
    body["properties"]["probes"] = [
        {"id": f"{LB}/probes/http", "name": "http", "properties": {**GOOD, "port": 80}}
    ]
    found = judged(
        "closing-probe", settings=configured(), load_balancers={LB.casefold(): read(body)}
    )
    assert found.subject == "lb/http"


def test_the_fields_of_a_probe_are_parsed() -> None:
    """Path and behaviour come from the body; what is missing is empty."""
    probes = [
        {"id": "/p/1", "properties": {**GOOD, "noHealthyBackendsBehavior": "AllProbedUp"}},
        {"id": "/p/2", "properties": {"protocol": "Tcp", "port": 80}},
    ]
    rules = [
        {
            "id": f"/r/{n}",
            "properties": {"probe": {"id": f"/p/{n}"}, "backendAddressPool": {"id": APP}},
        }
        for n in (1, 2)
    ]
    found = parse_rules({"probes": probes, "loadBalancingRules": rules})
    shown = [(rule.probe.path, rule.probe.when_all_down) for rule in found if rule.probe]
    assert shown == [("/", "AllProbedUp"), ("", "")]


# --- this VM ---


def test_a_set_whose_vms_do_not_close_has_no_such_findings() -> None:
    """Nothing about closing is checked; what would have no effect is a warning."""
    stays = configured(listen="", policy={"close": False})
    checks = {each.check for each in run_checks(replace(healthy(), settings=stays)).findings}
    assert not checks & {"closing", "closing-probe", "flag-file", "hooks", "responder"}
    unused = judged("closing", settings=configured(policy={"close": False}))
    assert unused.result is Result.WARN
    assert unused.fix == ("remove close = false from [policy]",)


@pytest.mark.parametrize(
    ("check", "facts", "fix"),
    [
        ("flag-file", {"flag_problem": "the directory /x cannot be written"}, FLAG),
        ("hooks", {"hook_problems": {"/opt/a b": "is not executable"}}, "chmod a+rx '/opt/a b'"),
        ("responder", {"responder_answers": False}, "systemctl enable --now lb-drain-probe"),
    ],
)
def test_what_does_not_work_on_this_vm_is_a_failure(
    check: str, facts: dict[str, Any], fix: str
) -> None:
    """Each has a command or a line that corrects it."""
    side = VmSideFacts(**{"responder_answers": True, **facts})
    found = judged(check, settings=configured(), vm_side=side)
    assert found.result is Result.FAIL
    assert fix in found.fix[0]


def test_what_works_on_this_vm_passes() -> None:
    """Flag file, hooks and responder."""
    hooks = [{"on": "closing", "command": ["/bin/true"]}]
    settings, side = configured(hooks=hooks), VmSideFacts(responder_answers=True)
    for check in ("flag-file", "hooks", "responder"):
        assert judged(check, settings=settings, vm_side=side).result is Result.PASS
    without = configured(drain={"flag_file": ""})
    assert judged("flag-file", settings=without, vm_side=side).result is Result.WARN


async def test_the_facts_of_this_vm_are_read(tmp_path: Path) -> None:
    """A directory in place of the flag, a missing directory, and hooks that cannot run."""
    plain = tmp_path / "hook"
    plain.write_text("#!/bin/sh\n")
    plain.chmod(0o644)
    missing = str(tmp_path / "none")
    hooks = [{"on": "closing", "command": [each]} for each in (str(plain), missing, "/bin/sh")]

    async def flag_problem(path: Path) -> str:
        settings = configured(listen="", drain={"flag_file": str(path)}, hooks=hooks)
        side = await read_vm_side(settings, {})
        assert side.hook_problems == {str(plain): "is not executable", missing: "does not exist"}
        assert not side.responder_answers
        return side.flag_problem

    assert "is a directory" in await flag_problem(tmp_path)
    assert "does not exist" in await flag_problem(tmp_path / "no" / "draining")
    assert await flag_problem(tmp_path / "draining") == ""


@pytest.fixture
def ordinary_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run as a user who may write nothing below this directory, and not see its `root`."""
    stat_of, access = os.stat, os.access
    (tmp_path / "root").mkdir()

    def seen(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if tmp_path / "root" in Path(str(path)).parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat_of(path, *args, **options)

    def may(path: Any, mode: int, **options: Any) -> bool:
        is_own = str(path).startswith(str(tmp_path))
        return not is_own and access(path, mode, **options)

    monkeypatch.setattr(os, "stat", seen)
    monkeypatch.setattr(os, "access", may)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return tmp_path


@pytest.mark.parametrize("folder", ["", "root", "root/below"])
async def test_a_flag_file_that_this_user_may_not_write(ordinary_user: Path, folder: str) -> None:
    """The agent runs as another user: the directory that its unit creates is not writable here."""
    flag_file = str(ordinary_user / folder / "draining")
    settings = configured(listen="", drain={"flag_file": flag_file})
    side = await read_vm_side(settings, {})
    found = judged("flag-file", settings=settings, vm_side=side)
    assert (found.result, found.fix) == (Result.WARN, ("run the doctor as root",))
    assert flag_file in found.message


@pytest.mark.parametrize(("place", "mode"), [("root/finish", 0), ("finish", 0o750)])
async def test_a_hook_that_this_user_may_not_see_or_run(
    ordinary_user: Path, place: str, mode: int
) -> None:
    """It is no problem of the hook, and no proof that it runs."""
    program = ordinary_user / place
    if mode:
        program.write_text("#!/bin/sh\n")
        program.chmod(mode)
    settings = configured(listen="", hooks=[{"on": "closing", "command": [str(program)]}])
    found = judged("hooks", settings=settings, vm_side=await read_vm_side(settings, {}))
    assert (found.result, found.fix) == (Result.WARN, ("run the doctor as root",))


async def test_what_is_wrong_for_every_user_is_a_failure(ordinary_user: Path) -> None:
    """A missing directory, a directory in place of the flag, a program without an execute bit."""
    plain = ordinary_user / "plain"
    plain.write_text("#!/bin/sh\n")
    plain.chmod(0o644)
    hooks = [{"on": "closing", "command": [str(plain)]}]
    for flag in (ordinary_user, ordinary_user / "no" / "draining"):
        settings = configured(listen="", drain={"flag_file": str(flag)}, hooks=hooks)
        side = await read_vm_side(settings, {})
        for check in ("flag-file", "hooks"):
            assert judged(check, settings=settings, vm_side=side).result is Result.FAIL


@pytest.mark.parametrize("status", ["200 OK", "503 Service Unavailable"])
async def test_a_responder_that_answers_is_found(status: str) -> None:
    """Open or closed: it answers."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status}\r\nLB-Drain-Refused-Probes: 0\r\n\r\n"
        writer.write(head.encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        side = await read_vm_side(configured(listen=f"127.0.0.1:{port}"), {})
    assert side.responder_answers
    assert not side.responder_problem


@pytest.mark.parametrize(
    ("head", "problem", "fix"),
    [
        ("200 OK\r\nServer: nginx", "another program answers there, with HTTP status 200", "stop"),
        ("503 No\r\nServer: nginx", "another program answers there, with HTTP status 503", "stop"),
        (
            "404 Not Found\r\nLB-Drain-Refused-Probes: 0",
            "answers GET / with 404: it was started with another configuration",
            "systemctl restart lb-drain-probe",
        ),
    ],
)
async def test_an_answer_that_is_not_that_of_the_responder(
    head: str, problem: str, fix: str
) -> None:
    """A web server on the same port, or a responder with an older path: nothing passes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {head}\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        settings = configured(listen=f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        side = await read_vm_side(settings, {})
    found = judged("responder", settings=settings, vm_side=side)
    assert (found.result, problem in found.message) == (Result.FAIL, True)
    assert found.fix[0].startswith(fix)


@pytest.mark.parametrize(
    ("probe", "fix"),
    [
        ({"listen": "127.0.0.1:9810"}, 'listen = "0.0.0.0:9810" in [probe]'),
        ({"allow": ["10.0.0.0/8", "127.0.0.0/8"]}, 'add "168.63.129.16" to allow in [probe]'),
    ],
)
def test_a_responder_that_only_this_vm_reaches(probe: dict[str, Any], fix: str) -> None:
    """The doctor gets an answer and the load balancer none: the VM gets no traffic."""
    settings = configured(probe=probe, listen=probe.get("listen", LISTEN))
    side = VmSideFacts(responder_answers=True)
    found = judged("responder", settings=settings, vm_side=side)
    assert (found.result, found.fix[0]) == (Result.FAIL, fix)
    simulated = {"imds_endpoint": "http://127.0.0.1:9000"}
    settings = configured(probe=probe, listen=probe.get("listen", LISTEN), azure=simulated)
    assert judged("responder", settings=settings, vm_side=side).result is Result.PASS
