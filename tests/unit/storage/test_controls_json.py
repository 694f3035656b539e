"""The controls of the set as their blob stores them."""

from datetime import UTC, datetime, timedelta

import pytest

from controller.core.controls import Controls, EventControl, HandOver, Override, Pause
from controller.errors import ContractViolation, NewerFormat
from controller.storage.controls_json import decode_controls, encode_controls

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
PAUSE = Pause(by="ann", reason="migration", at=T0, until=T0 + timedelta(hours=2))
EVENT = EventControl(
    event_id="E-1",
    decision="hold",
    forced=True,
    by="ann",
    reason="",
    at=T0,
    until=T0 + timedelta(hours=2),
)
HAND_OVER = HandOver(
    request_id="H-1",
    leader="web-1",
    vm="",
    by="ann",
    reason="",
    at=T0,
    until=T0 + timedelta(minutes=1),
)
OVERRIDE = Override(
    key="min_in_service",
    pool="/a/pool",
    value="50%",
    by="ann",
    reason="",
    at=T0,
    until=T0 + timedelta(minutes=1),
)


def test_round_trip() -> None:
    """What is written is what is read, fields of a newer minor version included."""
    controls = Controls(
        pause=PAUSE,
        events=(EVENT,),
        hand_over=HAND_OVER,
        overrides=(OVERRIDE,),
        set_id="/a/set",
        minor=7,
        extra={"newest": [1]},
    )
    assert decode_controls(encode_controls(controls)) == controls
    assert decode_controls(b"") == decode_controls(encode_controls(Controls())) == Controls()


def test_an_operator_can_read_the_blob() -> None:
    """The blob has one line for each field, the version first."""
    written = encode_controls(Controls(pause=PAUSE, set_id="/a/set"))
    assert written.startswith(b'{\n "version": "1.0",\n "set_id": "/a/set",\n "pause": {\n')


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the controls"),
        (b"[]", "controls: expected an object, found a list"),
        (b'{"set_id": ""}', "controls.version: is missing"),
        (b'{"version": "1.0"}', "controls.set_id: is missing"),
        (b'{"version": "1.0", "set_id": "", "pause": []}', "controls.pause"),
        (b'{"version": "1.0", "set_id": "", "pause": {"by": "a"}}', "controls.pause.reason"),
        (b'{"version": "1.0", "version": "1.0"}', "comes twice"),
        (
            b'{"version": "1.0", "set_id": "", "events": [{"event_id": "E", "decision": 1}]}',
            "controls.events[0].decision: expected text",
        ),
        (
            b'{"version": "1.0", "set_id": "", "overrides": [{"key": "", "pool": "", "value": 1}]}',
            "controls.overrides[0].value: expected text",
        ),
        (b'{"version": "1.0", "set_id": "", "hand_over": {"vm": "a"}}', "controls.hand_over"),
        (b"\xff" * 9, "the controls"),
    ],
)
def test_content_that_is_no_controls(body: bytes, message: str) -> None:
    """The message names the place of the error."""
    with pytest.raises(ContractViolation) as caught:
        decode_controls(body)
    assert message in str(caught.value)


def test_a_later_major_version_is_left_alone() -> None:
    """The message asks to upgrade the agent."""
    with pytest.raises(NewerFormat, match=r"controls blob has version 2.0.*upgrade this agent"):
        decode_controls(b'{"version": "2.0", "pause": "whenever"}')
