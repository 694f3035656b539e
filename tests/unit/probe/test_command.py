"""`lb-drain probe` gives the responder what its unit passes."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from controller.cli import probe
from controller.probe.settings import ProbeSettings
from controller.system.processes import REPLACES_ITSELF
from tests.unit.vm_side.test_closing_side import CONFIG


@pytest.mark.skipif(not REPLACES_ITSELF, reason="the process is not replaced there")
def test_the_responder_gets_the_directory_and_the_boot_of_its_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S9: without either, it cannot keep a VM closed that has rebooted."""
    config = tmp_path / "config.toml"
    config.write_text(CONFIG + '[probe]\nlisten = "127.0.0.1:9810"\n')
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("BOOT_ID", "this-boot")
    started: list[ProbeSettings] = []

    def replace_process(_: str, command: Sequence[str]) -> NoReturn:
        started.append(ProbeSettings.from_json(command[-1]))
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", replace_process)
    with pytest.raises(SystemExit):
        probe._run(argparse.Namespace(config=config))
    [settings] = started
    assert (settings.state_directory, settings.boot_id) == (str(tmp_path), "this-boot")
