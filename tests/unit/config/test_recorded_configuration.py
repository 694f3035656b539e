"""A configuration of version 563b12a is read as before, and its templates give the same texts.

`tests/fixtures/563b12a/configuration` holds configurations, the settings that the code of that
commit read from them, and the webhook bodies that it made with their templates.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controller.config.loader import load
from controller.config.notifications import TEMPLATE_FIELDS
from controller.core.notices.notice import Notice, NoticeKind
from controller.notifications.formats import Origin, render, webhook_body

RECORDED = Path(__file__).parents[2] / "fixtures" / "563b12a" / "configuration"
MESSAGES: list[dict[str, Any]] = json.loads((RECORDED / "messages.json").read_text())
LATER = {"resource_group": "web-rg", "runbook_url": ""}
"""The fields that were added since."""


def without_new_keys(now: object, then: object) -> object:
    """Return the value of today, without keys that the older version did not have."""
    if isinstance(now, dict) and isinstance(then, dict):
        return {
            key: without_new_keys(value, then[key]) for key, value in now.items() if key in then
        }
    if isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        return [without_new_keys(one, other) for one, other in zip(now, then, strict=True)]
    return now


@pytest.mark.parametrize("name", ["every_key", "required_keys"])
def test_a_recorded_configuration_has_the_recorded_settings(name: str) -> None:
    """Every key, value and default of that version is still the same."""
    settings = load(RECORDED / f"{name}.toml", {}).settings
    recorded = json.loads((RECORDED / f"{name}.json").read_text())
    assert without_new_keys(settings.model_dump(mode="json"), recorded) == recorded


@pytest.mark.parametrize("recorded", MESSAGES, ids=lambda each: f"{each['channel']}-{each['kind']}")
def test_a_recorded_template_gives_the_recorded_text(recorded: dict[str, Any]) -> None:
    """Kinds, fields and texts of a template are the same; every message has every known field."""
    notifications = load(RECORDED / "every_key.toml", {}).settings.notifications
    channel = next(each for each in notifications if each.kind == recorded["channel"])
    notice = Notice(
        kind=NoticeKind(recorded["kind"]),
        id="25e29886c9a2b063",
        at=datetime(2026, 1, 5, 12, tzinfo=UTC),
        text="web-1 is out of rotation",
        vm="web-1",
        event_id="E-1",
        event_type="Reboot",
        not_before=datetime(2026, 1, 5, 12, 10, tzinfo=UTC),
    )
    assert channel.wants(notice) is recorded["wanted"]
    origin = Origin(agent="web-2", availability_set="web", resource_group="web-rg")
    message = render(notice, template=channel.template, origin=origin)
    assert webhook_body(message) == recorded["webhook"] | LATER
    assert tuple(message.fields) == TEMPLATE_FIELDS
