"""`lb-drain init`: asks how the application takes part in a drain, and returns the settings.

The default is the flag file: it changes nothing for an application that does not look at it.
"""

import argparse
from collections.abc import Callable

from controller.config.option_types import checked
from controller.config.vm_side import Drain, Probe

KEYS = ("policy.close", "policy.mechanism", "drain.flag_file", "probe.listen")
"""Where one of these is given by the environment, the question is answered."""
CHOICES = f"""How does the application take part in a drain?
  1  not at all: a VM is removed from its pools, and connections that remain are cut
  2  it looks at the flag file {Drain().flag_file}, which exists while the VM is closed
  3  lb-drain answers the load balancer's health probe, and the flag file exists as well"""
DEFAULT_PORT = "9810"

Ask = Callable[[str], str]


def ask_participation(ask: Ask) -> dict[str, object]:
    """Return the settings for the answers."""
    print(CHOICES)
    while (choice := ask("1, 2 or 3 [2]: ") or "2") not in {"1", "2", "3"}:
        print("the answer is not 1, 2 or 3")
    if choice == "1":
        return {"policy.close": False}
    values: dict[str, object] = {"policy.close": True, "drain.flag_file": Drain().flag_file}
    if choice == "3":
        values["probe.listen"] = _listen(ask)
        values["probe.check"] = _check(ask)
    return values


def _listen(ask: Ask) -> str:
    check = checked(Probe, "listen")
    while True:
        port = ask(f"port of the responder, which the probe has to ask [{DEFAULT_PORT}]: ")
        try:
            return str(check(f"0.0.0.0:{port or DEFAULT_PORT}"))
        except argparse.ArgumentTypeError as error:
            print(f"the answer {error}")


def _check(ask: Ask) -> str:
    check = checked(Probe, "check")
    while True:
        try:
            return str(
                check(
                    ask(
                        "URL of the application's own check, a page that does not look at the flag "
                        "file, such as http://127.0.0.1:8080/ready [none]: "
                    )
                )
            )
        except argparse.ArgumentTypeError as error:
            print(f"the answer {error}")
