"""Arguments of `lb-drain simulate VERB`, which steers a simulation: each becomes one request."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

ControlRequest = tuple[str, str, object]
"""Method, path and JSON body for the simulator's control endpoint."""


def add_verbs(
    simulate: argparse.ArgumentParser, steer: Callable[[argparse.Namespace], int], epilog: str
) -> None:
    """Add the verbs below `simulate`. `steer` sends what `request` makes of their arguments."""

    def takes_directory(parser: argparse.ArgumentParser, text: str) -> None:
        parser.add_argument(
            "--directory", type=Path, default=Path("lb-drain-sim"), metavar="DIR", help=text
        )

    takes_directory(simulate, "where configurations go (default: lb-drain-sim)")
    verbs = simulate.add_subparsers(metavar="VERB", help="steer a simulation that is running")

    def add(
        name: str,
        request: Callable[[argparse.Namespace], ControlRequest],
        text: str,
        example: str,
    ) -> argparse.ArgumentParser:
        verb = verbs.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"example: lb-drain simulate {example} --directory sim\n\n{epilog}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        takes_directory(verb, "the directory of the simulation (default: lb-drain-sim)")
        verb.set_defaults(command=steer, request=request)
        return verb

    event = add(
        "event",
        _event_request,
        "announce maintenance of VMs; prints the event's id",
        "event Reboot web-1 --notice 60",
    )
    event.add_argument(
        "type",
        choices=("Freeze", "Reboot", "Redeploy", "Preempt", "Terminate"),
        help="what happens to the VMs",
    )
    event.add_argument("vm", nargs="+", metavar="VM", help="names of the VMs; one event for all")
    event.add_argument(
        "--notice",
        type=float,
        default=60,
        metavar="S",
        help="seconds from now to NotBefore (default: 60); Azure gives 900 for a reboot",
    )
    event.add_argument(
        "--duration",
        type=int,
        default=-1,
        metavar="S",
        help="DurationInSeconds as announced: seconds, or -1 for unknown (default: -1)",
    )
    event.add_argument(
        "--impact",
        type=float,
        default=20,
        metavar="S",
        help="seconds for which the VMs are really away once the event has started (default: 20)",
    )
    event.add_argument(
        "--started",
        type=float,
        default=30,
        metavar="S",
        help="seconds for which the event stays Started before it leaves the document "
        "(default: 30)",
    )
    event.add_argument(
        "--source",
        choices=("Platform", "User"),
        default="Platform",
        help="who caused it, as announced (default: Platform)",
    )
    event.add_argument(
        "--started-first", action="store_true", help="appears already Started, with no notice"
    )
    for name, text in (("cancel", "cancel an event"), ("complete", "end an event now")):
        verb = add(name, _event_verb(name), text, f"{name} EVENT_ID")
        verb.add_argument("id", metavar="EVENT_ID", help="as announcing it printed it")
    fault = add(
        "fault",
        _fault_request,
        "inject a fault, given as JSON; without one, remove all",
        """fault '{"effect":"hang","service":"blob","times":3}'""",
    )
    fault.add_argument(
        "rule",
        nargs="?",
        type=_json_object,
        metavar="JSON",
        help="service (imds, arm, blob), effect, and its limits, such as method or times",
    )
    vm = add(
        "vm",
        lambda options: ("POST", f"/vms/{options.vm}/state", {"state": options.state}),
        "bring a VM into a state that no event announced, as an operator's own reboot does",
        "vm web-1 rebooting",
    )
    vm.add_argument("vm", metavar="VM", help="name of the VM")
    vm.add_argument(
        "state",
        choices=("running", "rebooting", "frozen", "stopped", "deallocated"),
        help="what becomes of it",
    )
    maintenance = add(
        "maintenance",
        _maintenance_request,
        "plan maintenance of VMs that their owner may start from now on",
        "maintenance web-1 web-2 --window 3600",
    )
    maintenance.add_argument("vm", nargs="+", metavar="VM", help="names of VMs")
    maintenance.add_argument(
        "--window",
        type=float,
        default=3600,
        metavar="S",
        help="seconds for which it may be started (default: 3600); Azure gives about 35 days",
    )
    maintenance.add_argument(
        "--down",
        type=float,
        default=20,
        metavar="S",
        help="seconds for which the VM is away while it is maintained (default: 20)",
    )
    add(
        "traffic",
        lambda _: ("GET", "/traffic", None),
        "show how many requests of clients were sent, answered and lost",
        "traffic",
    )
    add(
        "state",
        lambda _: ("GET", "/state", None),
        "show VMs, pools, events and leases as JSON",
        "state",
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


def _maintenance_request(options: argparse.Namespace) -> ControlRequest:
    body = {"vms": options.vm, "window_s": options.window, "down_s": options.down}
    return "POST", "/maintenance", body


def _event_verb(verb: str) -> Callable[[argparse.Namespace], ControlRequest]:
    return lambda options: ("POST", f"/events/{options.id}/{verb}", None)


def _fault_request(options: argparse.Namespace) -> ControlRequest:
    if options.rule is None:
        return "DELETE", "/faults", None
    return "POST", "/faults", options.rule


def _json_object(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object")
    return cast("object", value)
