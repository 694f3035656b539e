"""`lb-drain probe`: answer the load balancer's health probe for this VM."""

import argparse
import os
import sys

from controller.cli.command import EXIT_OK, CommandGroup
from controller.cli.options import add_config_option
from controller.config.base import socket_address
from controller.config.loader import load
from controller.config.schema import Settings
from controller.errors import ConfigError
from controller.probe.settings import ProbeSettings
from controller.system.boot_id import boot_id_of
from controller.system.processes import REPLACES_ITSELF


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""
    parser = commands.add(
        "probe",
        _run,
        summary="answer the load balancer's health probe for this VM",
        details="503 while the VM is closed, else the application's own answer. It runs "
        "beside the agent, as a service of its own.",
        examples=("--config config.toml",),
    )
    add_config_option(parser)


def _run(options: argparse.Namespace) -> int:
    # systemd passes the directory of a unit's StateDirectory.
    directory = os.environ.get("STATE_DIRECTORY", "").partition(os.pathsep)[0]
    loaded = load(options.config, os.environ).settings
    boot_id = boot_id_of(os.environ)
    settings = responder_settings(loaded, state_directory=directory, boot_id=boot_id)
    if REPLACES_ITSELF:
        sys.stdout.flush()
        # The responder is a process without the configuration's libraries: a third of the memory.
        os.execv(  # noqa: S606 -- this program itself, with checked values
            sys.executable, (sys.executable, "-m", "controller.probe", settings.to_json())
        )
    from controller.probe.responder import serve

    serve(settings)
    return EXIT_OK


def responder_settings(
    settings: Settings, *, state_directory: str = "", boot_id: str = ""
) -> ProbeSettings:
    """Return what the responder is given. Raises ConfigError without `[probe] listen`."""
    probe, drain = settings.probe, settings.drain
    if not probe.listen:
        raise ConfigError(
            "probe.listen is not set: there is nothing to answer on. Set it in [probe], for "
            'example listen = "0.0.0.0:9810", and point the health probe of the load balancer '
            "at that port"
        )
    host, port = socket_address(probe.listen)
    return ProbeSettings(
        host=host,
        port=port,
        path=probe.path,
        check=probe.check,
        allow=probe.allow,
        flag_file=drain.flag_file,
        open_after_s=drain.open_after_s,
        state_directory=state_directory,
        boot_id=boot_id,
    )
