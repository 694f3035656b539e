"""Which blobs of a container belong to which set."""

from datetime import UTC, datetime, timedelta

from controller.azure.container import ListedBlob
from controller.core.azure_names import fold
from controller.core.fleet import AgentTrace
from controller.storage.container_view import sets_in
from controller.storage.controls_store import controls_blob_name
from controller.storage.drain_request_store import drain_requests_blob_name
from controller.storage.ledger_store import ledger_blob_name
from controller.storage.presence_json import presence_blob_name
from controller.storage.shared_pool_store import shared_pool_blob_name
from controller.storage.vm_report_store import vm_report_blob_name

AT = datetime(2030, 1, 2, tzinfo=UTC)
SET = "/subscriptions/S/resourceGroups/RG/providers/Microsoft.Compute/availabilitySets/web"
POOL = "/subscriptions/S/resourceGroups/RG/providers/Microsoft.Network/loadBalancers/l/b/p"


def listed(name: str, *, minutes: int = 0) -> ListedBlob:
    return ListedBlob(
        name=name,
        etag="e",
        size=1,
        written_at=AT + timedelta(minutes=minutes),
        lease_state="available",
    )


def test_every_blob_that_agents_and_commands_write_is_sorted_to_its_set() -> None:
    """A set has one row, and the newest of its blobs shows when it was written last."""
    ledger = ledger_blob_name(SET)
    beside = (
        listed(drain_requests_blob_name(ledger), minutes=1),
        listed(vm_report_blob_name(ledger, "web-1"), minutes=3),
        listed(f"{ledger}.unreadable-0123456789ab", minutes=2),
        listed(presence_blob_name(ledger, "WEB-1"), minutes=2),
        listed(controls_blob_name(ledger)),
    )
    blobs = (listed(ledger), *beside, listed(shared_pool_blob_name(POOL)))
    (found,) = sets_in(blobs)
    assert found.ledger == fold(ledger)
    assert found.listed == listed(ledger)
    assert len(found.others) == 5
    assert found.controls == listed(controls_blob_name(ledger))
    assert found.agents == [AgentTrace(vm="web-1", written_at=AT + timedelta(minutes=2))]
    assert found.written_at == AT + timedelta(minutes=3)
    assert sets_in(reversed(blobs))[0].written_at == found.written_at


def test_a_ledger_may_have_any_name() -> None:
    """`election.blob_name` need not end in .json, and its requests belong to it."""
    beside = ("mine.requests.json", "mine.agents/a.json", "mine.controls.json")
    (found,) = sets_in(map(listed, (*beside, "mine")))
    assert (found.ledger, len(found.others), len(found.agents)) == ("mine", 3, 1)
    assert found.controls == listed("mine.controls.json")
    names = [each.ledger for each in sets_in(map(listed, ("b.json", "a", "requests.json")))]
    assert names == ["a", "b.json", "requests.json"]


def test_a_set_without_its_ledger_is_found() -> None:
    """The other blobs show that there was one."""
    (found,) = sets_in((listed("s/g/web.requests.json", minutes=4),))
    assert (found.ledger, found.listed) == ("s/g/web.json", None)
    assert found.written_at == AT + timedelta(minutes=4)
    assert sets_in(()) == ()
