"""`lb-drain simulate`: serve a simulated set, and control a simulation that is running.

Each command below `simulate` becomes one request to the control endpoint of the simulator.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

from controller.cli.command import EXIT_FAILED, EXIT_OK, CommandGroup
from controller.cli.options import number_between
from controller.system.signals import STOP, on_signal

ControlRequest = tuple[str, str, object]
"""Method, path and JSON body of a request to the control endpoint of the simulator."""

ToRequest = Callable[[argparse.Namespace], ControlRequest]


def add_parser(commands: CommandGroup) -> None:
    """Add the command and the commands below it."""
    parser = commands.add(
        "simulate",
        _serve,
        summary="serve a simulated set for agents until interrupted, or control it",
        examples=(
            "--vms 3 --directory sim",
            "event Reboot web-1 --notice 60 --directory sim",
        ),
    )
    parser.add_argument(
        "--vms",
        type=number_between(1, 200),
        default=3,
        metavar="N",
        help="1 to 200 VMs (default: 3)",
    )
    parser.add_argument(
        "--load",
        type=number_between(0, 500),
        default=0,
        metavar="N",
        help="requests per second that clients send through the load balancer (default: 0)",
    )
    _add_directory_option(parser, "directory for the configuration files (default: lb-drain-sim)")
    verbs = CommandGroup(parser, prefix="lb-drain simulate", metavar="COMMAND", required=False)
    _add_event(verbs)
    _add_event_commands(verbs)
    _add_fault(verbs)
    _add_vm(verbs)
    _add_maintenance(verbs)
    _add_replace(verbs)
    _add_update(verbs)
    _add_settings(verbs)
    _add_reads(verbs)


def _add_directory_option(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--directory", type=Path, default=Path("lb-drain-sim"), metavar="DIR", help=text
    )


def _add_verb(
    verbs: CommandGroup, name: str, to_request: ToRequest, *, summary: str, example: str = ""
) -> argparse.ArgumentParser:
    parser = verbs.add(
        name, _control, summary=summary, examples=(f"{example} --directory sim".lstrip(),)
    )
    _add_directory_option(parser, "directory of the simulation (default: lb-drain-sim)")
    parser.set_defaults(to_request=to_request, show=partial(json.dumps, indent=1))
    return parser


def _add_event(verbs: CommandGroup) -> None:
    parser = _add_verb(
        verbs,
        "event",
        _event_request,
        summary="announce a scheduled event for VMs and print its id",
        example="Reboot web-1 --notice 60",
    )
    parser.add_argument(
        "type",
        choices=("Freeze", "Reboot", "Redeploy", "Preempt", "Terminate"),
        help="event type",
    )
    parser.add_argument(
        "vm", nargs="+", metavar="VM", help="names of the VMs, which share one event"
    )
    parser.add_argument(
        "--notice",
        type=float,
        default=60,
        metavar="S",
        help="seconds from now to NotBefore (default: 60); Azure gives 900 for a reboot",
    )
    parser.add_argument(
        "--duration",
        type=int,
        default=-1,
        metavar="S",
        help="announced DurationInSeconds; -1 means unknown (default: -1)",
    )
    parser.add_argument(
        "--impact",
        type=float,
        default=20,
        metavar="S",
        help="seconds for which the VMs are unavailable after the event has started (default: 20)",
    )
    parser.add_argument(
        "--started",
        type=float,
        default=30,
        metavar="S",
        help="seconds for which the event has the status Started before it is removed from the "
        "document (default: 30)",
    )
    parser.add_argument(
        "--source",
        choices=("Platform", "User"),
        default="Platform",
        help="announced EventSource (default: Platform)",
    )
    parser.add_argument(
        "--started-first",
        action="store_true",
        help="the event appears with the status Started, without notice",
    )


def _add_event_commands(verbs: CommandGroup) -> None:
    for name, summary in (("cancel", "cancel an event"), ("complete", "end an event now")):
        parser = _add_verb(verbs, name, _event_command(name), summary=summary, example="EVENT_ID")
        parser.add_argument("id", metavar="EVENT_ID", help="id that `simulate event` printed")


def _add_fault(verbs: CommandGroup) -> None:
    parser = _add_verb(
        verbs,
        "fault",
        _fault_request,
        summary="inject a fault, given as JSON; without an argument, remove all faults",
        example="""'{"effect":"hang","service":"blob","times":3}'""",
    )
    parser.add_argument(
        "rule",
        nargs="?",
        type=_json_object,
        metavar="JSON",
        help="service (imds, arm, blob), effect, and limits such as method or times",
    )


def _add_vm(verbs: CommandGroup) -> None:
    parser = _add_verb(
        verbs,
        "vm",
        lambda options: ("POST", f"/vms/{options.vm}/state", {"state": options.state}),
        summary="set the state of a VM without an event, like a reboot by an administrator",
        example="web-1 rebooting",
    )
    parser.add_argument("vm", metavar="VM", help="name of the VM")
    parser.add_argument(
        "state",
        choices=("running", "rebooting", "frozen", "stopped", "deallocated"),
        help="new state",
    )


def _add_maintenance(verbs: CommandGroup) -> None:
    parser = _add_verb(
        verbs,
        "maintenance",
        _maintenance_request,
        summary="plan maintenance of VMs with a self-service window that opens now",
        example="web-1 web-2 --window 3600",
    )
    parser.add_argument("vm", nargs="+", metavar="VM", help="names of the VMs")
    parser.add_argument(
        "--window",
        type=float,
        default=3600,
        metavar="S",
        help="length of the window in seconds (default: 3600); Azure gives about 35 days",
    )
    parser.add_argument(
        "--down",
        type=float,
        default=20,
        metavar="S",
        help="seconds for which the VM is unavailable during its maintenance (default: 20)",
    )


def _add_replace(verbs: CommandGroup) -> None:
    parser = _add_verb(
        verbs,
        "replace",
        lambda options: ("POST", "/replacements", {"kind": options.kind, "name": options.name}),
        summary="create a resource again under its name, or convert the set to a scale set",
        example="vm web-1",
    )
    parser.add_argument(
        "kind",
        choices=("vm", "nic", "pool", "load-balancer", "set", "conversion"),
        help="kind of the resource; a pool or load balancer starts without members, a conversion "
        "deletes the set",
    )
    parser.add_argument(
        "name", nargs="?", default="", metavar="NAME", help="name of the resource; not for a set"
    )


def _add_update(verbs: CommandGroup) -> None:
    parser = _add_verb(
        verbs,
        "update",
        _update_request,
        summary="start a run of an update of the Azure Stack Hub",
        example="Microsoft1.2108.2.65 --run 20",
    )
    parser.add_argument("name", metavar="UPDATE", help="name of the update")
    parser.add_argument(
        "--run", type=float, default=30, metavar="S", help="seconds that it takes (default: 30)"
    )
    parser.add_argument(
        "--result",
        choices=("succeeds", "fails", "endless"),
        default="succeeds",
        help="how it ends (default: succeeds)",
    )
    parser.add_argument("--resume", action="store_true", help="resume its newest run, which failed")
    parser.add_argument(
        "--outage-after",
        type=float,
        metavar="S",
        help="the API of the Hub stops responding after this time; by default it responds",
    )
    parser.add_argument(
        "--outage",
        type=float,
        metavar="S",
        help="and responds again after this time (default: it does not)",
    )
    status = _add_verb(
        verbs,
        "endpoint",
        lambda _: ("GET", "/updates/status", None),
        summary="print the XML that a privileged endpoint of the Hub prints",
        example="ercs01",
    )
    status.add_argument(
        "endpoint", nargs="?", metavar="ENDPOINT", help="privileged endpoint; all print the same"
    )
    status.set_defaults(show=_xml_of)


def _add_settings(verbs: CommandGroup) -> None:
    parser = _add_verb(
        verbs,
        "settings",
        lambda options: ("GET" if options.values is None else "POST", "/settings", options.values),
        summary="show the settings of the simulated Azure, or change settings, given as JSON",
        example="""'{"flows_on_remove":"keep"}'""",
    )
    parser.add_argument(
        "values", nargs="?", type=_json_object, metavar="JSON", help="settings to change"
    )


def _add_reads(verbs: CommandGroup) -> None:
    _add_verb(
        verbs,
        "traffic",
        lambda _: ("GET", "/traffic", None),
        summary="show how many client requests were sent, answered and lost",
    )
    _add_verb(
        verbs,
        "state",
        lambda _: ("GET", "/state", None),
        summary="show VMs, pools, events and leases as JSON",
    )


def _event_request(options: argparse.Namespace) -> ControlRequest:
    body = {
        "event_type": options.type,
        "resources": options.vm,
        "notice_s": options.notice,
        "duration_s": options.duration,
        "impact_s": options.impact,
        "started_s": options.started,
        "source": options.source,
        "started_first": options.started_first,
    }
    return "POST", "/events", body


def _event_command(name: str) -> ToRequest:
    return lambda options: ("POST", f"/events/{options.id}/{name}", None)


def _fault_request(options: argparse.Namespace) -> ControlRequest:
    if options.rule is None:
        return "DELETE", "/faults", None
    return "POST", "/faults", options.rule


def _maintenance_request(options: argparse.Namespace) -> ControlRequest:
    body = {"vms": options.vm, "window_s": options.window, "down_s": options.down}
    return "POST", "/maintenance", body


def _update_request(options: argparse.Namespace) -> ControlRequest:
    body = {
        "name": options.name,
        "run_s": options.run,
        "result": options.result,
        "resume": options.resume,
        "outage_after_s": options.outage_after,
        "outage_s": options.outage,
    }
    return "POST", "/updates", body


def _xml_of(answer: dict[str, str]) -> str:
    return answer["xml"]


def _json_object(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object")
    return cast("object", value)


def _serve(options: argparse.Namespace) -> int:
    from controller.simulator.app.simulate import BusyDirectoryError, serve

    async def serve_until_interrupted() -> None:
        stopping = asyncio.Event()
        on_signal(STOP, stopping.set)
        await serve(options.directory, vms=options.vms, load=options.load, stopping=stopping)

    try:
        asyncio.run(serve_until_interrupted())
    except BusyDirectoryError as error:
        print(f"lb-drain: {error}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK


def _control(options: argparse.Namespace) -> int:
    from controller.simulator.app.simulate import send_control

    method, path, body = options.to_request(options)
    succeeded, answer = asyncio.run(send_control(options.directory, method, path, body))
    if succeeded:
        print(options.show(answer))
        return EXIT_OK
    if isinstance(answer, dict):
        answer = cast("dict[str, object]", answer).get("error", "the request failed")
    print(f"lb-drain: {answer}", file=sys.stderr)
    return EXIT_FAILED
