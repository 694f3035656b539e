"""What a privileged endpoint prints: the status in the XML, or why there is none."""

import codecs

import pytest

from controller.core.hub_status import read_status
from controller.core.hub_updates import RunState
from controller.errors import ContractViolation

RUNNING = """<?xml version="1.0" encoding="utf-16"?>
<Action Type="CloudUpdate" Status="InProgress">
  <Steps>
    <Step Name="Cloud Update" Status="InProgress">
      <Step Name="Restart Storage Hosts" Status="InProgress"/>
    </Step>
    <Step Name="Check" Status="Skipped"/>
  </Steps>
</Action>"""


@pytest.mark.parametrize(
    "output",
    [
        RUNNING.encode(),
        codecs.BOM_UTF8 + RUNNING.encode(),
        RUNNING.encode("utf-16"),
        b"WARNING: the session is insecure.\r\n" + RUNNING.encode() + b"\r\n\0bye",
    ],
    ids=["utf-8", "byte order mark", "utf-16", "among other text"],
)
def test_the_status_and_the_innermost_step_are_read(output: bytes) -> None:
    """PowerShell declares UTF-16 whatever it writes, and prints warnings around the document."""
    status = read_status(output)
    assert (status.status, status.state) == ("InProgress", RunState.IN_PROGRESS)
    assert status.step == "Restart Storage Hosts"


@pytest.mark.parametrize(
    ("xml", "state"),
    [
        ("<Action Status='Success'/>", RunState.SUCCEEDED),
        ("<Update status='Completed'/>", RunState.SUCCEEDED),
        ("<Update><Status>Failed</Status></Update>", RunState.FAILED),
        ("<Action Status='Error'><Step Name='x' Status='Success'/></Action>", RunState.FAILED),
        ("<Action Status='Canceled'/>", RunState.FAILED),
        ("<Action><Steps Status='Running'/></Action>", RunState.IN_PROGRESS),
        ("<Action Status='Sleeping'/>", RunState.UNKNOWN),
    ],
)
def test_the_status_of_the_whole_counts(xml: str, state: RunState) -> None:
    """It is an attribute or an element, of the root before anything below it."""
    assert read_status(xml.encode()).state is state


def test_a_failed_step_is_named_before_one_in_progress() -> None:
    """What failed is what an operator looks for."""
    xml = "<A Status='Error'><S Name='bad' Status='Error'/><S Name='on' Status='InProgress'/></A>"
    assert read_status(xml.encode()).step == "bad"


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        (b"", "no XML: nothing"),
        (b"Access is denied.\r\n", "no XML: Access is denied."),
        (b"<Action Status='Success'", "no valid XML"),
        (b"\xff\xfe\x00<", "no XML"),
        (b"<Action Progress='12'/>", "without a Status"),
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><Action Status='Success'/>", "document type"),
        (b"<a>" * 50_000, "no valid XML"),
    ],
    ids=["nothing", "text", "cut", "noise", "no status", "entities", "nested"],
)
def test_anything_else_is_no_status(output: bytes, problem: str) -> None:
    """The reason is one short printable line."""
    with pytest.raises(ContractViolation, match=problem) as caught:
        read_status(output)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_a_status_of_any_length_is_cut() -> None:
    """It gets into notifications."""
    status = read_status(f"<A Status='{'x' * 10_000}'/>".encode())
    assert len(status.status) < 100
