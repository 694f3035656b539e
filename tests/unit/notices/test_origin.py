"""How a notification names its set, and the chapter of the runbook that it links to."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.core.notices.notice import PROBLEMS, Notice, NoticeKind
from controller.notifications.formats import (
    CHAPTERS,
    Message,
    Origin,
    mail,
    render,
    slack_body,
    teams_body,
    webhook_body,
)

RUNBOOK = "https://wiki.example.com/lb-drain"
ORIGIN = Origin(agent="web-1", availability_set="web", resource_group="web-rg", runbook_url=RUNBOOK)


def message(kind: NoticeKind = NoticeKind.AT_RISK, origin: Origin = ORIGIN) -> Message:
    at = datetime(2030, 1, 2, tzinfo=UTC)
    notice = Notice(kind=kind, id="1", at=at, text="it is in rotation", vm="web-2")
    return render(notice, template="", origin=origin)


def test_a_headline_names_the_set_and_its_resource_group() -> None:
    """Eighty sets can be named web; the subject of a mail and the first line tell them apart."""
    subject = mail(message(), sender="a@example.com", to=("b@example.com",))["Subject"]
    assert subject == "[lb-drain] At risk: web-2 (web in web-rg)"
    assert slack_body(message())["text"].splitlines() == [
        "At risk: web-2 (web in web-rg)",
        "it is in rotation",
        "",
        "set: web",
        "resource group: web-rg",
        "reported by: web-1",
        f"runbook: {RUNBOOK}#lbdrainatrisk",
    ]
    unknown = message(origin=Origin(agent="web-1"))
    assert unknown.headline == "At risk: web-2"
    assert "runbook" not in unknown.body


@pytest.mark.parametrize(
    "text_of",
    [
        lambda message: slack_body(message)["text"],
        lambda message: teams_body(message)["attachments"][0]["content"]["body"][0]["text"],
    ],
)
def test_an_event_of_hundreds_of_vms_keeps_text_and_facts_in_a_chat(
    text_of: Callable[[Message], str],
) -> None:
    """The names alone are longer than a chat message may be; the deadline comes after them."""
    at = datetime(2030, 1, 2, tzinfo=UTC)
    names = ", ".join(f"web_{n:07}" for n in range(400))
    notice = Notice(
        kind=NoticeKind.EVENT_ANNOUNCED,
        id="1",
        at=at,
        text=f"Reboot of {names} announced",
        vm=names,
        not_before=at,
    )
    text = text_of(render(notice, template="", origin=ORIGIN))
    headline, *lines = [line for line in text.splitlines() if line]
    assert headline.startswith("Maintenance announced: web_0000000, ")
    assert headline.endswith("... (web in web-rg)")
    assert lines[0].startswith("Reboot of web_0000000, ")
    assert lines[1:] == [
        "NotBefore: 2030-01-02T00:00:00+00:00",
        "set: web",
        "resource group: web-rg",
        "reported by: web-1",
        f"runbook: {RUNBOOK}",
    ]


def test_a_webhook_has_the_names_and_the_link() -> None:
    """Each is a field of its own, also for templates."""
    body = webhook_body(message())
    assert body["resource_group"] == "web-rg"
    assert body["runbook_url"] == f"{RUNBOOK}#lbdrainatrisk"
    assert webhook_body(message(origin=Origin(agent="a")))["runbook_url"] == ""


def test_a_notification_without_a_chapter_links_to_the_whole_runbook() -> None:
    """A chapter is there for each kind that may need an action."""
    assert message(NoticeKind.VM_RESTORED).fields["runbook_url"] == RUNBOOK
    assert set(CHAPTERS) == PROBLEMS


@pytest.mark.parametrize("chapter", sorted(CHAPTERS.values()))
def test_every_chapter_is_in_the_runbook(chapter: str) -> None:
    """A link leads to a heading."""
    text = (Path(__file__).parents[3] / "deploy" / "README.md").read_text()
    assert chapter in {each.casefold() for each in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
