"""The parsers that take a body as it is: what they must make of any bytes.

Each function may raise the errors of `controller.errors`, which `targets.hold` looks at. Whatever
else it raises is a finding.
"""

import copy
import json
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from controller.azure import network_bodies
from controller.azure.http import error_body, error_mapping
from controller.azure.http.json_reader import as_object
from controller.azure.http.resource_id import ResourceId
from controller.azure.imds_document import parse_document, parse_instance, parse_instant
from controller.config.loader import describe, load
from controller.core import strict_json
from controller.core.azure_names import fold
from controller.core.events import EventDocument
from controller.core.planning.actions import Acknowledge, ChangeMembership
from controller.storage.ledger_json import decode_ledger, encode_ledger
from tests.fuzz import oracles
from tests.fuzz.memory import NEXT_REPLY, START
from tests.fuzz.world import CACHE, IN_POOL, LEDGER, ON_NIC, as_bytes, decide, stored

_DRAINING_TYPES = {"Reboot", "Redeploy", "Preempt", "Terminate"}


def event_document(body: bytes) -> None:
    """No event is hidden, an id that stands twice releases none, and no VM comes back early."""
    document = parse_document(body)
    seen = list(oracles.all_events(body))
    distinct = {repr(event) for event in seen}
    assert bool(seen) == bool(document.events or document.set_aside), "an event was hidden"
    assert all(len(values) == 1 for event in seen for values in event.values()), "a key twice"
    read = {fold(event.event_id) for event in document.events}
    aside = {fold(each.event_id) for each in document.set_aside}
    for event in seen:
        (event_id,) = event.get("EventId", [None])
        hidden = not isinstance(event_id, str) or fold(event_id) not in read | aside
        assert not hidden or "" in aside, "an event was hidden"
    assert len(document.events) <= len(distinct), "an event was made up"
    ids = [fold(event.event_id) for event in document.events if event.acknowledgeable]
    assert len(set(ids)) == len(ids), "one id for two events"
    for action in decide(document, LEDGER).actions:
        if isinstance(action, Acknowledge):
            reported = [e for e in seen if e.get("EventId") == [action.event_id]]
            assert reported, "S1"
            for event in reported:
                assert {fold(name) for name in event["Resources"][0]} == {"web-2"}, "S1"
                assert str(event["EventStatus"][0]).casefold() == "scheduled", "S1"
        if isinstance(action, ChangeMembership) and action.restore:
            assert not document.set_aside, "S6"
            assert not any(
                "web-2" in event["Resources"][0]
                and set(event.get("EventType", [])) <= _DRAINING_TYPES
                for event in seen
            ), "S6"


def instance_document(body: bytes) -> None:
    """The VM has a name, and an id that a resource can have."""
    instance = parse_instance(body)
    assert ResourceId.parse(instance.vm_id).names
    assert instance.name and instance.subscription_id and instance.resource_group  # noqa: PT018


def not_before(body: bytes) -> None:
    """A date is one that can be reckoned with, or none."""
    moment = parse_instant(body.decode(errors="replace"))
    if moment is not None:
        assert moment.utcoffset() == timedelta(0)
        assert moment - timedelta(days=30) < moment + timedelta(days=30)


def nic(body: bytes) -> None:
    """Taking a membership off a NIC and putting it back changes nothing else."""
    received = as_object(strict_json.loads(body, "a NIC"), "a NIC")
    before = network_bodies.parse_nic(received, START)
    kept = copy.deepcopy(received)
    taken = network_bodies.without_memberships(received, ON_NIC)
    given = network_bodies.with_memberships(received, ON_NIC)
    assert oracles.same(received, kept), "what was read was changed"
    for edit, back in ((taken, False), (given, True)):
        after = network_bodies.pool_references(network_bodies.parse_nic(edit.body, START))
        wanted = {
            network_bodies.pool_reference(item)
            for item in ON_NIC
            if not back or item not in edit.absent
        }
        expected = (
            network_bodies.pool_references(before) | wanted
            if back
            else network_bodies.pool_references(before) - wanted
        )
        assert after == expected, "not what was wanted"
        assert edit.changed or oracles.same(edit.body, received)
        if edit.changed:
            oracles.check_nic_edit(body, as_bytes(edit.body), ON_NIC, back=back)


def pool(body: bytes) -> None:
    """Taking an address out of a pool and putting it back changes nothing else."""
    received = as_object(strict_json.loads(body, "a pool"), "a pool")
    network_bodies.parse_pool(received, START)
    kept = copy.deepcopy(received)
    for back in (False, True):
        change = network_bodies.with_addresses if back else network_bodies.without_addresses
        edit = change(received, IN_POOL)
        assert oracles.same(received, kept), "what was read was changed"
        network_bodies.parse_pool(edit.body, START)
        assert edit.changed or oracles.same(edit.body, received)
        if edit.changed:
            oracles.check_pool_edit(body, as_bytes(edit.body), IN_POOL, back=back)


def remembered_address(body: bytes) -> None:
    """An entry from the ledger is put back only as the address that it was recorded for."""
    text = body.decode(errors="surrogateescape")
    if "\udc80" <= max(text, default="") <= "\udcff":
        return
    received = network_bodies.without_addresses(stored(CACHE), IN_POOL).body
    edit = network_bodies.with_addresses(received, (replace(IN_POOL[0], body=text),))
    oracles.check_pool_edit(as_bytes(received), as_bytes(edit.body), IN_POOL, back=True)


def load_balancer(body: bytes) -> None:
    """Every pool stands below its load balancer, and no pool stands twice."""
    found = network_bodies.parse_load_balancer(
        as_object(strict_json.loads(body, "a load balancer"), "a load balancer"), START
    )
    ids = [fold(each.pool_id) for each in found.pools]
    assert len(set(ids)) == len(ids), "a pool twice"


def ledger(body: bytes) -> None:
    """What is read is written as it was, and can be decided on."""
    found = decode_ledger(body)
    text = encode_ledger(found)
    assert decode_ledger(text) == found
    assert encode_ledger(decode_ledger(text)) == text
    if body:
        received = oracles.strict(body, halves=True)
        assert len(received["entries"]) == len(found.entries), "an entry was forgotten"
        assert set(received) <= set(json.loads(text)), "a field was forgotten"
    wanted = decide(EventDocument(incarnation=1), found)
    encode_ledger(replace(wanted.ledger or found, epoch=found.epoch + 1))


def error_reply(reply: bytes) -> None:
    """Every reply that reports an error becomes one, and the wait it asks for is bounded."""
    status, headers, body = oracles.parts(reply)
    error = error_mapping.from_status(status, headers, body, "arm nic_put")
    _check_wait(getattr(error, "retry_after_s", None))
    raise error


def retry_after(text: bytes) -> None:
    """The wait is bounded, whatever header or sentence asks for it."""
    header, _, sentence = text.decode("latin-1").partition("\n")
    _check_wait(error_body.retry_after({"retry-after": header}, sentence))


def _check_wait(wait_s: float | None) -> None:
    assert wait_s is None or 0 <= wait_s <= error_body.MAX_RETRY_AFTER_S, wait_s


def configuration(text: bytes) -> None:
    """A file is refused with a word about each problem, or every setting can be shown."""
    file, _, environment = text.partition(NEXT_REPLY)
    lines = environment.decode(errors="surrogateescape").split("\n")
    environ = {name: value for name, found, value in (line.partition("=") for line in lines)}
    with tempfile.NamedTemporaryFile() as written:
        written.write(file)
        written.flush()
        loaded = load(Path(written.name), environ)
    for key, value, origin in describe(loaded):
        assert key and origin, value  # noqa: PT018
    settings = loaded.settings
    assert len(set(settings.pool_names().values())) == len(settings.backend_pools)
    assert settings.election.request_timeout_s < settings.election.lease_duration_s
