"""Notices of one agent: services that do not respond, and a set without a leader."""

import pytest

from controller.core.notices.agent_notices import ServiceOutage, leadership_notice, service_notice
from controller.core.notices.notice import NoticeKind
from tests.support.planner_scenario import at


def outcomes(*steps: tuple[float, bool]) -> list[bool]:
    outage, alarms = ServiceOutage(), list[bool]()
    for now_s, answered in steps:
        outage = outage.after(answered, now_s)
        alarms.append(outage.unreachable)
    return alarms


@pytest.mark.parametrize(
    ("steps", "alarms"),
    [
        ([(0, False), (1, False), (59, False)], [False, False, False]),
        ([(0, False), (1, False), (60, False)], [False, False, True]),
        ([(0, False), (99, False)], [False, False]),
        ([(0, False), (50, True), (51, False), (52, False), (70, False)], [False] * 5),
        ([(0, False), (1, False), (60, False), (61, False), (62, True)], [False] * 2
         + [True] * 2 + [False]),
    ],
)  # fmt: skip
def test_an_outage_is_several_failures_that_last(
    steps: list[tuple[float, bool]], alarms: list[bool]
) -> None:
    """Three in a row over a minute are an alarm until an answer; fewer or shorter ones are not."""
    assert outcomes(*steps) == alarms


@pytest.mark.parametrize(
    ("unreachable", "kind", "text"),
    [
        (True, NoticeKind.SERVICE_UNREACHABLE, "ARM does not respond (reported by web-1)"),
        (False, NoticeKind.SERVICE_RECOVERED, "ARM responds again (reported by web-1)"),
    ],
)
def test_a_service_that_is_unreachable_or_recovered(
    unreachable: bool, kind: NoticeKind, text: str
) -> None:
    """The notice names service, agent and time; that of another agent has another id."""
    notice = service_notice("web-1", "ARM", unreachable=unreachable, at=at(3))
    assert (notice.kind, notice.text, notice.vm, notice.at) == (kind, text, "web-1", at(3))
    others = [
        service_notice("web-2", "ARM", unreachable=unreachable, at=at(3)),
        service_notice("web-1", "IMDS", unreachable=unreachable, at=at(3)),
        service_notice("web-1", "ARM", unreachable=unreachable, at=at(4)),
        service_notice("web-1", "ARM", unreachable=not unreachable, at=at(3)),
    ]
    assert len({each.id for each in (notice, *others)}) == 5


@pytest.mark.parametrize(
    ("missing", "kind", "text"),
    [
        (
            True,
            NoticeKind.NO_LEADER,
            "the set has no leader: no VM is drained (reported by web-1)",
        ),
        (False, NoticeKind.LEADER_RESTORED, "the set has a leader again (reported by web-1)"),
    ],
)
def test_a_set_without_a_leader_or_with_one_again(
    missing: bool, kind: NoticeKind, text: str
) -> None:
    """The notice names agent and time; that of another agent has another id."""
    notice = leadership_notice("web-1", missing=missing, at=at(3))
    assert (notice.kind, notice.text, notice.vm, notice.at) == (kind, text, "web-1", at(3))
    others = [
        leadership_notice("web-2", missing=missing, at=at(3)),
        leadership_notice("web-1", missing=missing, at=at(4)),
        leadership_notice("web-1", missing=not missing, at=at(3)),
    ]
    assert len({each.id for each in (notice, *others)}) == 4
