"""The token of the VM's identity: what counts while the metadata service issues none, or is slow.

Time is virtual: what sleeps wakes at once, later by as much as it wanted to sleep.
"""

import asyncio
import gc
import json
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest
from azure.core.credentials import TokenRequestOptions
from azure.core.exceptions import ClientAuthenticationError

from controller import errors
from controller.azure.http.arm_client import Arm
from controller.azure.http.arm_reader import ArmReader
from controller.azure.http.call import Caller
from controller.azure.http.error_mapping import translate
from controller.azure.http.identity import managed_identity
from controller.azure.http.request_waits import RequestWaits
from controller.azure.http.sdk import ManagedIdentityCredential
from controller.config.azure import Azure
from tests.fuzz.memory import Request, Runtime, Service

ARM = "https://127.0.0.1:44301"
SCOPE = "https://management.azure.com/.default"
STORAGE = "https://storage.azure.com/.default"
DAY_S = 86400
PAST_HALF_S = 13 * 3600
CALLER_DEADLINE_S = 4.0
CHALLENGE = (
    b"HTTP/1.1 401 Unauthorized\r\n"
    b'WWW-Authenticate: Bearer error="insufficient_claims", claims="eyJhIjoxfQ=="\r\n'
    b"Content-Length: 0\r\n\r\n"
)
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
FAILURES = {
    "gone": b"HTTP/1.1 410 Gone\r\nContent-Type: application/json\r\n\r\n{}",
    "throttled": b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 5\r\n\r\n",
    "500": b"HTTP/1.1 500 Oops\r\nContent-Type: application/json\r\n\r\n{}",
    "reset": b"",
    "no JSON": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>",
}


class TokenEndpoint(Service):
    """Issues SECRET-1, SECRET-2, ... or fails, after a while."""

    def __init__(self) -> None:
        super().__init__()
        self.lifetime_s = DAY_S
        self.reply_after_s = 0.0
        self.failure: bytes | None = None
        self.requests = 0
        self.issued = 0

    def answer(self, request: Request) -> bytes:
        self.received.append(request)
        if self.failure is not None:
            return self.failure
        self.issued += 1
        body = {
            "access_token": f"SECRET-{self.issued}",
            "expires_in": str(self.lifetime_s),
            "resource": SCOPE.removesuffix("/.default"),
        }
        return OK + json.dumps(body).encode()

    async def delay(self, *_arguments: object) -> None:
        self.requests += 1
        await asyncio.sleep(self.reply_after_s)


Act = Callable[[TokenEndpoint, ManagedIdentityCredential], Coroutine[Any, Any, None]]


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """Return a loop in virtual time, which the SDK reads as well."""
    virtual = Runtime()
    monkeypatch.setattr("time.time", lambda: virtual.clock.now().timestamp())
    return virtual


def play(runtime: Runtime, act: Act) -> None:
    """Run a test with a credential; no task may be left when it is closed."""

    async def whole() -> None:
        endpoint = TokenEndpoint()
        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(endpoint.delay)
        async with (
            runtime.session(endpoint, trace_configs=[trace]) as session,
            managed_identity(Azure(), session, runtime.clock) as credential,
        ):
            await act(endpoint, credential)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    runtime.run(whole)


async def token_of(credential: ManagedIdentityCredential, scope: str = SCOPE) -> str:
    """Return the token that a request gets within its deadline."""
    async with asyncio.timeout(CALLER_DEADLINE_S):
        return str((await credential.get_token_info(scope)).token)


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_valid_token_is_used_while_none_is_issued(runtime: Runtime, failure: bytes) -> None:
    """A token past its half life is used as long as a new one is refused, and then replaced."""

    async def act(endpoint: TokenEndpoint, credential: ManagedIdentityCredential) -> None:
        assert await token_of(credential) == "SECRET-1"
        await asyncio.sleep(PAST_HALF_S)
        endpoint.failure = failure
        for _ in range(60):
            assert await token_of(credential) == "SECRET-1"
            await asyncio.sleep(1)
        assert endpoint.requests == 3, "one, and one for each 30 s"
        endpoint.failure = None
        await asyncio.sleep(30)
        assert await token_of(credential) == "SECRET-2"

    play(runtime, act)


def test_a_valid_token_is_used_while_the_endpoint_hangs(runtime: Runtime) -> None:
    """One request in 30 s waits for a hanging endpoint, for a second."""

    async def act(endpoint: TokenEndpoint, credential: ManagedIdentityCredential) -> None:
        assert await token_of(credential) == "SECRET-1"
        await asyncio.sleep(PAST_HALF_S)
        endpoint.reply_after_s = DAY_S
        for waits_s in (1, 0, 0):
            begun = runtime.clock.monotonic()
            assert await token_of(credential) == "SECRET-1"
            assert runtime.clock.monotonic() - begun == pytest.approx(waits_s, abs=0.1)
        await asyncio.sleep(31)
        assert (await token_of(credential), endpoint.requests) == ("SECRET-1", 3)

    play(runtime, act)


def test_a_caller_with_a_short_deadline_waits_once(runtime: Runtime) -> None:
    """The next caller uses the token if the first gives up before the wait for a new one ends."""

    async def act(endpoint: TokenEndpoint, credential: ManagedIdentityCredential) -> None:
        await token_of(credential)
        await asyncio.sleep(PAST_HALF_S)
        endpoint.reply_after_s = DAY_S
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await credential.get_token_info(SCOPE)
        async with asyncio.timeout(0.5):
            assert (await credential.get_token_info(SCOPE)).token == "SECRET-1"

    play(runtime, act)


def test_a_token_near_its_expiry_is_used(runtime: Runtime) -> None:
    """A short-lived token, which the SDK renews five minutes before, is used in a hang as well."""

    async def act(endpoint: TokenEndpoint, credential: ManagedIdentityCredential) -> None:
        endpoint.lifetime_s = 3600
        await token_of(credential)
        await asyncio.sleep(3600 - 200)
        endpoint.reply_after_s = DAY_S
        assert await token_of(credential) == "SECRET-1"

    play(runtime, act)


def test_a_slow_endpoint_delivers_to_the_next_caller(runtime: Runtime) -> None:
    """An endpoint that takes longer than the deadline of a caller still yields a token."""

    async def act(endpoint: TokenEndpoint, credential: ManagedIdentityCredential) -> None:
        endpoint.reply_after_s = 6
        with pytest.raises(TimeoutError):
            await token_of(credential)
        assert await token_of(credential) == "SECRET-1"
        assert endpoint.requests == 1

    play(runtime, act)


def test_callers_share_one_request(runtime: Runtime) -> None:
    """Callers of one scope send one request, also if one is cancelled; each scope has its own."""

    async def act(endpoint: TokenEndpoint, credential: ManagedIdentityCredential) -> None:
        endpoint.reply_after_s = 2
        callers = [asyncio.create_task(token_of(credential)) for _ in range(3)]
        storage = asyncio.create_task(token_of(credential, STORAGE))
        await asyncio.sleep(1)
        callers[0].cancel()
        assert await asyncio.gather(*callers[1:]) == ["SECRET-1", "SECRET-1"]
        assert (await storage, endpoint.requests) == ("SECRET-2", 2)

    play(runtime, act)


def test_a_lifetime_beyond_all_numbers_is_a_long_one(runtime: Runtime) -> None:
    """Whatever number of seconds the service states, the token is compared with the clock."""

    async def act(endpoint: TokenEndpoint, credential: ManagedIdentityCredential) -> None:
        endpoint.lifetime_s = 10**400
        assert await token_of(credential) == await token_of(credential) == "SECRET-1"

    play(runtime, act)


@pytest.mark.parametrize("left_s", [59, 0, -1])
def test_an_expired_token_is_not_used(runtime: Runtime, left_s: int) -> None:
    """Without a token for another minute, each request asks again, and reports the failure."""

    async def act(endpoint: TokenEndpoint, credential: ManagedIdentityCredential) -> None:
        await token_of(credential)
        await asyncio.sleep(DAY_S - left_s)
        endpoint.failure = FAILURES["500"]
        for requests in (2, 3):
            with pytest.raises(ClientAuthenticationError):
                await token_of(credential)
            assert endpoint.requests == requests
        endpoint.failure = None
        assert await token_of(credential) == "SECRET-2"

    play(runtime, act)


def test_an_endpoint_that_never_answers_is_given_up(runtime: Runtime) -> None:
    """A token request ends after 30 s: no request was sent, and the next caller asks again."""

    async def act(endpoint: TokenEndpoint, credential: ManagedIdentityCredential) -> None:
        endpoint.reply_after_s = DAY_S
        with pytest.raises(ClientAuthenticationError) as given_up:
            await credential.get_token_info(SCOPE)
        error = translate(given_up.value, "vm_get")
        assert isinstance(error, errors.NotSent)
        assert (error.service, runtime.clock.monotonic()) == ("imds", pytest.approx(30, abs=0.1))
        endpoint.reply_after_s = 0
        assert await token_of(credential) == "SECRET-1"

    play(runtime, act)


def test_claims_are_not_served_from_memory(runtime: Runtime) -> None:
    """A token that a service has refused is used neither for the claims nor afterwards."""

    async def act(endpoint: TokenEndpoint, credential: ManagedIdentityCredential) -> None:
        await token_of(credential)
        await asyncio.sleep(PAST_HALF_S)
        endpoint.failure = FAILURES["500"]
        assert await token_of(credential) == "SECRET-1"
        for options in (TokenRequestOptions(claims="{}"), TokenRequestOptions()):
            with pytest.raises(ClientAuthenticationError):
                await credential.get_token_info(SCOPE, options=options)
        endpoint.failure = None
        claimed = await credential.get_token_info(SCOPE, options={"claims": "{}"})
        assert (claimed.token, await token_of(credential)) == ("SECRET-2", "SECRET-2")

    play(runtime, act)


def test_claims_have_a_request_of_their_own(runtime: Runtime) -> None:
    """A request that began without the claims is not the answer to them."""

    async def act(endpoint: TokenEndpoint, credential: ManagedIdentityCredential) -> None:
        endpoint.reply_after_s = 2
        first = asyncio.create_task(token_of(credential))
        await asyncio.sleep(1)
        claimed = await credential.get_token_info(SCOPE, options={"claims": "{}"})
        assert (await first, claimed.token) == ("SECRET-1", "SECRET-2")

    play(runtime, act)


def test_the_other_method_shares_the_token(runtime: Runtime) -> None:
    """`get_token` is `get_token_info` for older clients, with and without claims."""

    async def act(endpoint: TokenEndpoint, credential: ManagedIdentityCredential) -> None:
        assert await token_of(credential) == "SECRET-1"
        await asyncio.sleep(PAST_HALF_S)
        endpoint.failure = FAILURES["500"]
        assert (await credential.get_token(SCOPE)).token == "SECRET-1"
        with pytest.raises(ClientAuthenticationError):
            await credential.get_token(SCOPE, claims="{}")

    play(runtime, act)


def test_requests_continue_with_the_token(runtime: Runtime) -> None:
    """A read of Resource Manager succeeds past the half life; after a challenge it fails."""

    async def act(endpoint: TokenEndpoint, credential: ManagedIdentityCredential) -> None:
        service = Service(otherwise=OK + b"{}")
        async with runtime.session(service) as session:
            arm = Arm(
                endpoint=ARM,
                scope=SCOPE,
                credential=credential,
                session=session,
                waits=RequestWaits(runtime.clock),
            )
            caller = Caller(service="compute", clock=runtime.clock, version=arm.compute_version)
            reader = ArmReader(arm, caller)
            await reader.get("vm_get", "/subscriptions/s")
            await asyncio.sleep(PAST_HALF_S)
            endpoint.failure = FAILURES["500"]
            await reader.get("vm_get", "/subscriptions/s")
            assert service.received[-1].headers["authorization"] == "Bearer SECRET-1"
            service.script = [CHALLENGE]
            with pytest.raises(errors.NotSent):
                await reader.get("vm_get", "/subscriptions/s")

    play(runtime, act)


@pytest.mark.parametrize("claims", ["", "{}"])
def test_closing_ends_the_request(runtime: Runtime, claims: str) -> None:
    """No task is left when the credential is closed during a request that nobody waits for."""

    async def act(endpoint: TokenEndpoint, credential: ManagedIdentityCredential) -> None:
        endpoint.reply_after_s = DAY_S
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await credential.get_token_info(SCOPE, options={"claims": claims})

    play(runtime, act)
    assert runtime.clock.monotonic() < 5


def test_an_unread_failure_is_not_logged(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    """A token request that fails after its caller has gone is no complaint of asyncio."""

    async def act(endpoint: TokenEndpoint, credential: ManagedIdentityCredential) -> None:
        endpoint.reply_after_s, endpoint.failure = 6, FAILURES["500"]
        with pytest.raises(TimeoutError):
            await token_of(credential)
        await asyncio.sleep(10)

    play(runtime, act)
    gc.collect()  # asyncio complains when the task is collected
    assert [each for each in caplog.records if each.name == "asyncio"] == []


def test_no_repr_shows_the_token(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the credential, its task, nor what it returns shows a token, also in debug mode."""
    shown: list[str] = []

    async def act(endpoint: TokenEndpoint, credential: ManagedIdentityCredential) -> None:
        runtime.loop.set_debug(True)
        endpoint.reply_after_s = 1
        caller = asyncio.create_task(credential.get_token_info(SCOPE))
        await asyncio.sleep(0.5)
        tasks = asyncio.all_tasks()
        token = await caller
        assert token.token == "SECRET-1"
        shown.extend(repr(each) for each in (*tasks, token, credential, vars(credential)))

    with caplog.at_level(logging.DEBUG):
        play(runtime, act)
    assert len(shown) > 4
    assert "SECRET" not in "".join(shown) + caplog.text
