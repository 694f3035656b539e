"""The simulated Blob service, cell by cell of the lease table in Microsoft docs, Lease Blob."""

from typing import Any

import pytest

from controller.simulator.services.blob import handle
from controller.simulator.services.http_values import Reply, Request, Service
from controller.simulator.world.blob_store import BlobStore

NOW = 1_800_000_000.0
A = "aaaaaaaa-0000-4000-8000-000000000001"
B = "bbbbbbbb-0000-4000-8000-000000000002"
PATH = "/account/lb-drain/set"
DURATION_S = 30
STATES = ("available", "leased", "breaking", "broken", "expired")


class Fixture:
    """A store with one blob, and a clock that only the test moves."""

    def __init__(self, **knobs: object) -> None:
        self.now = NOW
        self.store = BlobStore(**knobs)  # type: ignore[arg-type]
        self.store.create_container("account", "lb-drain", NOW)
        assert self.put(b"ledger").status == 201

    def send(
        self,
        method: str,
        *,
        query: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
        path: str = PATH,
        token: str = "Bearer web-1",
        **headers: Any,
    ) -> Reply:
        sent = {k.replace("_", "-"): v for k, v in headers.items() if v is not None}
        if token:
            sent["authorization"] = token
        request = Request(
            service=Service.BLOB, method=method, path=path, query=query, headers=sent, body=body
        )
        known = {"web-1", "web-2"}
        return handle(
            self.store, request, self.now, caller=lambda token: token if token in known else None
        )

    def put(self, body: bytes = b"new", **headers: Any) -> Reply:
        return self.send("PUT", body=body, x_ms_blob_type="BlockBlob", **headers)

    def lease(self, action: str, **headers: Any) -> Reply:
        return self.send("PUT", query=(("comp", "lease"),), x_ms_lease_action=action, **headers)

    def acquire(self, lease_id: str | None, duration: int = DURATION_S) -> Reply:
        return self.lease(
            "acquire", x_ms_lease_duration=str(duration), x_ms_proposed_lease_id=lease_id
        )

    def with_id(self, action: str, lease_id: str, proposed: str | None = None) -> Reply:
        return self.lease(action, x_ms_lease_id=lease_id, x_ms_proposed_lease_id=proposed)

    def break_(self, period: int | None = None) -> Reply:
        text = None if period is None else str(period)
        return self.lease("break", x_ms_lease_break_period=text)

    @property
    def state(self) -> str:
        return self.send("HEAD").headers["x-ms-lease-state"]


def in_state(state: str) -> Fixture:
    """Return a service whose blob was leased by A and is now in `state`."""
    service = Fixture()
    if state != "available":
        assert service.acquire(A).status == 201
    match state:
        case "breaking":
            assert service.break_(20).status == 202
        case "broken":
            assert service.break_(0).status == 202
        case "expired":
            service.now += DURATION_S
    assert service.state == state
    return service


def cells(operation: str, *outcomes: tuple[int, str]) -> list[tuple[str, str, int, str]]:
    """Name one row of the table: (status, state afterwards or error code) for each state."""
    return [
        (operation, state, status, result)
        for state, (status, result) in zip(STATES, outcomes, strict=True)
    ]


OPERATIONS = {
    "acquire, no id": lambda s: s.acquire(None),
    "acquire A": lambda s: s.acquire(A),
    "acquire B": lambda s: s.acquire(B),
    "renew A": lambda s: s.with_id("renew", A),
    "renew B": lambda s: s.with_id("renew", B),
    "change A to B": lambda s: s.with_id("change", A, B),
    "change B to A": lambda s: s.with_id("change", B, A),
    "change B to B": lambda s: s.with_id("change", B, B),
    "release A": lambda s: s.with_id("release", A),
    "release B": lambda s: s.with_id("release", B),
    "break 0": lambda s: s.break_(0),
    "break 10": lambda s: s.break_(10),
    "write A": lambda s: s.put(x_ms_lease_id=A),
    "write B": lambda s: s.put(x_ms_lease_id=B),
    "write, no id": lambda s: s.put(),
    "read, no id": lambda s: s.send("GET"),
    "read A": lambda s: s.send("GET", x_ms_lease_id=A),
    "read B": lambda s: s.send("GET", x_ms_lease_id=B),
}
PRESENT = (409, "LeaseAlreadyPresent")
MISMATCH = (409, "LeaseIdMismatchWithLeaseOperation")
NO_LEASE = (409, "LeaseNotPresentWithLeaseOperation")
UNRENEWABLE = (409, "LeaseIsBrokenAndCannotBeRenewed")
BREAKING = (409, "LeaseIsBreakingAndCannotBeAcquired")
UNCHANGEABLE = (409, "LeaseIsBreakingAndCannotBeChanged")
NO_BLOB_LEASE = (412, "LeaseNotPresentWithBlobOperation")
OTHER = (412, "LeaseIdMismatchWithBlobOperation")
LOST = (412, "LeaseLost")
MISSING = (412, "LeaseIdMissing")
LEASED = (201, "leased")
TABLE = [
    *cells("acquire, no id", LEASED, PRESENT, PRESENT, LEASED, LEASED),
    *cells("acquire A", LEASED, LEASED, BREAKING, LEASED, LEASED),
    *cells("acquire B", LEASED, PRESENT, PRESENT, LEASED, LEASED),
    *cells("renew A", MISMATCH, (200, "leased"), UNRENEWABLE, UNRENEWABLE, (200, "leased")),
    *cells("renew B", MISMATCH, MISMATCH, MISMATCH, MISMATCH, MISMATCH),
    *cells("change A to B", NO_LEASE, (200, "leased"), UNCHANGEABLE, NO_LEASE, NO_LEASE),
    *cells("change B to A", NO_LEASE, (200, "leased"), UNCHANGEABLE, NO_LEASE, NO_LEASE),
    *cells("change B to B", NO_LEASE, MISMATCH, MISMATCH, NO_LEASE, NO_LEASE),
    *cells("release A", MISMATCH, *[(200, "available")] * 4),
    *cells("release B", *[MISMATCH] * 5),
    *cells("break 0", NO_LEASE, *[(202, "broken")] * 4),
    *cells(
        "break 10",
        NO_LEASE,
        (202, "breaking"),
        (202, "breaking"),
        (202, "broken"),
        (202, "broken"),
    ),
    *cells("write A", NO_BLOB_LEASE, (201, "leased"), (201, "breaking"), LOST, LOST),
    *cells("write B", NO_BLOB_LEASE, OTHER, OTHER, OTHER, OTHER),
    *cells("write, no id", (201, "available"), MISSING, MISSING, *[(201, "available")] * 2),
    *cells(
        "read, no id",
        (200, "available"),
        (200, "leased"),
        (200, "breaking"),
        (200, "broken"),
        (200, "expired"),
    ),
    *cells("read A", NO_BLOB_LEASE, (200, "leased"), (200, "breaking"), LOST, LOST),
    *cells("read B", NO_BLOB_LEASE, OTHER, OTHER, OTHER, OTHER),
]


@pytest.mark.parametrize(("operation", "state", "status", "result"), TABLE)
def test_every_cell_of_the_lease_table(
    operation: str, state: str, status: int, result: str
) -> None:
    """Each operation in each state has the documented status and leaves the documented state."""
    service = in_state(state)
    reply = OPERATIONS[operation](service)
    assert reply.status == status
    if status >= 400:
        assert reply.headers["x-ms-error-code"] == result
        assert f"<Code>{result}</Code>".encode() in reply.body
        assert service.state == state
    else:
        assert service.state == result


@pytest.mark.parametrize(
    ("state", "after_s", "expected"),
    [("leased", 29.9, "leased"), ("leased", 30, "expired"), ("breaking", 20, "broken")],
)
def test_time_alone_ends_a_lease(state: str, after_s: float, expected: str) -> None:
    """A lease expires, and a break period ends, exactly when its time is up."""
    service = in_state(state)
    service.now += after_s
    assert service.state == expected


def test_renew_starts_the_clock_again() -> None:
    """A renewed lease lives its whole duration from the renewal on."""
    service = in_state("leased")
    service.now += 29
    assert service.with_id("renew", A).status == 200
    service.now += 29
    assert service.state == "leased"


def test_acquire_again_takes_the_new_duration() -> None:
    """The holder may acquire again and so choose another duration."""
    service = in_state("leased")
    assert service.acquire(A, 60).status == 201
    service.now += 59
    assert service.state == "leased"


def test_infinite_lease_never_expires_and_breaks_at_once() -> None:
    """A lease of -1 outlives any time and a break without period ends it immediately."""
    service = Fixture()
    assert service.acquire(A, -1).status == 201
    service.now += 1e6
    assert service.send("HEAD").headers["x-ms-lease-duration"] == "infinite"
    assert service.break_().headers["x-ms-lease-time"] == "0"
    assert service.state == "broken"


def test_break_without_period_lets_the_rest_run() -> None:
    """A break without a period on a fixed lease ends it when it would have ended anyway."""
    service = in_state("leased")
    service.now += 10
    assert service.break_().headers["x-ms-lease-time"] == "20"
    service.now += 19
    assert service.state == "breaking"
    service.now += 1
    assert service.state == "broken"


def test_second_break_can_only_shorten() -> None:
    """A second break shortens the period but never lengthens it."""
    service = in_state("breaking")
    assert service.break_(60).headers["x-ms-lease-time"] == "20"
    assert service.break_(5).headers["x-ms-lease-time"] == "5"


@pytest.mark.parametrize("action", ["renew", "release"])
def test_late_renewal_proves_that_no_write_happened(action: str) -> None:
    """After expiry the old id works until a write, and not after it."""
    service = in_state("expired")
    assert service.put().status == 201
    reply = service.with_id(action, A)
    assert (reply.status, reply.headers["x-ms-error-code"]) == MISMATCH


def test_late_renew_fails_once_another_has_leased() -> None:
    """After expiry and another's acquire, the old holder cannot renew nor write."""
    service = in_state("expired")
    assert service.acquire(B).status == 201
    assert service.with_id("renew", A).status == 409
    assert service.put(x_ms_lease_id=A).status == 412


def test_wait_after_expiry_binds_others_only() -> None:
    """With the wait on, only the old id gets the lease before the wait is over."""
    service = in_state("expired")
    service.store.wait_after_expiry_s = 60
    service.now += 59.9
    assert service.acquire(B).headers["x-ms-error-code"] == "LeaseAlreadyPresent"
    service.now += 0.1
    assert service.acquire(B).status == 201
    service.now += DURATION_S + 1
    assert service.acquire(B).status == 201


def test_release_needs_no_wait() -> None:
    """A released lease is free at once, whatever the wait after an expiry."""
    service = in_state("leased")
    service.store.wait_after_expiry_s = 60
    assert service.with_id("release", A).status == 200
    assert service.acquire(B).status == 201


def test_lease_calls_keep_the_etag() -> None:
    """Only writes change the ETag; lease operations do not."""
    service = Fixture()
    before = service.send("HEAD").headers["etag"]
    service.acquire(A)
    service.with_id("renew", A)
    assert service.send("HEAD").headers["etag"] == before
    assert service.put(x_ms_lease_id=A).headers["etag"] != before


@pytest.mark.parametrize("status", [409, 412])
def test_status_of_a_foreign_write_is_a_knob(status: int) -> None:
    """A write with another's lease id is refused with the status that was chosen."""
    service = in_state("leased")
    service.store.foreign_write_status = status
    assert service.put(x_ms_lease_id=B).status == status


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"if_none_match": "*"}, 409, "BlobAlreadyExists"),
        ({"if_match": '"0xOLD"'}, 412, "ConditionNotMet"),
        ({"if_match": "*"}, 201, None),
    ],
)
def test_write_conditions(headers: dict[str, Any], status: int, code: str | None) -> None:
    """If-Match and If-None-Match decide whether an existing blob is written."""
    service = Fixture()
    reply = service.put(**headers)
    assert (reply.status, reply.headers.get("x-ms-error-code")) == (status, code)
    assert service.send("GET").body == (b"ledger" if code else b"new")


def test_if_match_on_a_missing_blob() -> None:
    """If-Match never creates a blob."""
    reply = Fixture().put(path=PATH + "-other", if_match="*")
    assert (reply.status, reply.headers["x-ms-error-code"]) == (412, "ConditionNotMet")


@pytest.mark.parametrize(
    ("path", "code"),
    [("/account/nowhere/set", "ContainerNotFound"), (PATH + "x", "BlobNotFound")],
)
def test_missing_things(path: str, code: str) -> None:
    """A missing container and a missing blob have different errors."""
    reply = Fixture().send("GET", path=path)
    assert (reply.status, reply.headers["x-ms-error-code"]) == (404, code)


def test_ranges() -> None:
    """A range is answered 206 with its place in the whole, and no range fits an empty blob."""
    service = Fixture()
    reply = service.send("GET", x_ms_range="bytes=0-33554431")
    assert (reply.status, reply.body) == (206, b"ledger")
    assert reply.headers["content-range"] == "bytes 0-5/6"
    service.put(b"")
    assert service.send("GET", x_ms_range="bytes=0-33554431").status == 416
    assert service.send("GET").body == b""


@pytest.mark.parametrize("value", ["14", "61", "0", "-2", "soon", None])
def test_duration_bounds(value: str | None) -> None:
    """Only 15 to 60 seconds, or -1, are durations of a lease."""
    service = Fixture()
    assert service.lease("acquire", x_ms_lease_duration=value).status == 400
    assert service.state == "available"


def test_proposed_id_must_be_a_guid() -> None:
    """A proposed lease id that is no GUID is refused."""
    assert Fixture().acquire("me").headers["x-ms-error-code"] == "InvalidHeaderValue"


@pytest.mark.parametrize("token", ["", "Bearer stolen"])
def test_authentication(token: str) -> None:
    """Without a valid token the answer is 401 with a challenge."""
    reply = Fixture().send("GET", token=token)
    assert reply.status == 401
    assert reply.headers["www-authenticate"].startswith("Bearer ")


def test_shared_key_is_taken_at_its_word() -> None:
    """A connection string works: SharedKey signatures are not verified."""
    assert Fixture().send("GET", token="SharedKey account:c2ln").status == 200


def test_data_actions() -> None:
    """A VM without the write data action may read but neither write nor lease; another VM may."""
    service = Fixture()
    service.store.denied_writes.add("web-1")
    assert service.send("GET").status == 200
    for reply in (service.put(), service.acquire(A)):
        assert (reply.status, reply.headers["x-ms-error-code"]) == (
            403,
            "AuthorizationPermissionMismatch",
        )
    assert service.put(token="Bearer web-2").status == 201


def test_history() -> None:
    """Lease changes and writes that took place are reported, refused ones are not."""
    seen: list[tuple[str, str, str]] = []
    service = Fixture()
    service.store.record = lambda kind, subject, **detail: seen.append(
        (kind, subject, str(detail["by"]))
    )
    service.acquire(A)
    service.acquire(B)
    service.put(x_ms_lease_id=A)
    assert seen == [("lease_acquire", PATH, "web-1"), ("blob_written", PATH, "web-1")]


def test_container_calls() -> None:
    """A container is created once and can be asked for."""
    service = Fixture()
    query = (("restype", "container"),)
    assert service.send("PUT", path="/account/second", query=query).status == 201
    assert service.send("PUT", path="/account/second", query=query).status == 409
    assert service.send("HEAD", path="/account/second", query=query).status == 200
    assert service.send("HEAD", path="/account/third", query=query).status == 404
