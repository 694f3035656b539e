"""Faults as explicit rules: which requests, from the how-manieth on, get which treatment.

There is no randomness here. A scenario that wants random faults draws the rules from its own seed
and puts them into the book; a failing run is then repeated by the rules alone. The first rule that
matches a request and still has something to give decides; the rules below it are neither consulted
nor counted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, cast

from controller.simulator.services.http_values import Reply, Request, Service

MAX_RULES = 1000
MAX_REMEMBERED = 512
OVERSIZED_BYTES = 16 * 1024 * 1024


class Effect(Enum):
    """What happens to a request."""

    REPLY = "reply"
    """Answered with `status`, `body` and `headers`; the service never sees it."""
    EMPTY_200 = "empty_200"
    """Answered 200 without a body, as some VMs' IMDS does."""
    HANG = "hang"
    """Never answered, never seen by the service."""
    HANG_AFTER = "hang_after"
    """Handled, then never answered."""
    RESET_BEFORE = "reset_before"
    """Connection reset; the service never sees it."""
    RESET_AFTER = "reset_after"
    """A lost reply: handled in full, then the connection is reset."""
    DELAY = "delay"
    """Handled at once, answered `delay_s` later."""
    GARBAGE = "garbage"
    """Handled; the body that arrives is `body`, or bytes that are neither JSON, XML nor UTF-8."""
    OVERSIZED = "oversized"
    """Handled; the body that arrives is far larger than anything the service would send."""
    OPERATION = "operation"
    """The long-running operation that this request starts ends as `operation` specifies."""
    STALE = "stale"
    """A GET gets the last reply to the same GET from before this rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One rule. A condition that is None matches everything; text is compared without case."""

    service: Service | None = None
    vm: str | None = None
    method: str | None = None
    path_contains: str | None = None
    path_ends: str | None = None
    effect: Effect
    status: int = 503
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    delay_s: float = 0.0
    """Added to the reply of any effect that sends one."""
    operation: Literal["failed", "canceled", "no_effect"] = "failed"
    """`no_effect` reports success and changes nothing. `delay_s` is then the operation's length."""
    times: int | None = None
    """How many requests it treats; None is no limit."""
    after: int = 0
    """How many matching requests pass unharmed first."""
    until: float | None = None
    """Epoch seconds after which the rule is void."""

    def matches(self, request: Request, vm: str | None, now: float) -> bool:
        """Return whether the conditions hold. The fault book counts how often the rule applies."""
        return (
            (self.service is None or self.service is request.service)
            and (self.vm is None or _same(self.vm, vm or ""))
            and (self.method is None or _same(self.method, request.method))
            and (
                self.path_contains is None
                or self.path_contains.casefold() in request.path.casefold()
            )
            and (
                self.path_ends is None
                or request.path.casefold().endswith(self.path_ends.casefold())
            )
            and (self.until is None or now < self.until)
        )


@dataclass(slots=True)
class _Rule:
    fault: Fault
    seen: int = 0
    applied: int = 0


@dataclass(slots=True)
class FaultBook:
    """The rules in force, in order, and how often each has applied."""

    _rules: list[_Rule] = field(default_factory=list[_Rule])
    _last_replies: dict[tuple[Service, str, str], Reply] = field(
        default_factory=dict[tuple[Service, str, str], Reply]
    )

    def add(self, fault: Fault) -> None:
        """Append a rule; raise ValueError when the book is full."""
        if len(self._rules) >= MAX_RULES:
            raise ValueError(f"there are {MAX_RULES} fault rules already; clear them first")
        self._rules.append(_Rule(fault))

    def clear(self) -> None:
        """Drop every rule: from here on nothing goes wrong."""
        self._rules.clear()

    def take(self, request: Request, vm: str | None, now: float) -> Fault | None:
        """Return the rule that decides about this request, and count it."""
        for rule in self._rules:
            fault = rule.fault
            spent = fault.times is not None and rule.applied >= fault.times
            if spent or not fault.matches(request, vm, now):
                continue
            rule.seen += 1
            if rule.seen <= fault.after:
                continue
            rule.applied += 1
            return fault
        return None

    def remember(self, request: Request, reply: Reply) -> None:
        """Keep the last reply to each GET, for `stale`."""
        if request.method == "GET" and reply.status == 200:
            key = _key(request)
            self._last_replies.pop(key, None)
            self._last_replies[key] = reply
            if len(self._last_replies) > MAX_REMEMBERED:
                del self._last_replies[next(iter(self._last_replies))]

    def stale_reply(self, request: Request) -> Reply | None:
        """Return what the same GET was answered last; None when it was never asked."""
        return self._last_replies.get(_key(request))

    def to_json(self) -> list[dict[str, object]]:
        """Return the rules with how often each matched and applied."""
        return [
            fault_to_json(rule.fault) | {"seen": rule.seen, "applied": rule.applied}
            for rule in self._rules
        ]


_DEFAULTS = Fault(effect=Effect.HANG)


def fault_to_json(fault: Fault) -> dict[str, object]:
    """Return the rule as JSON, without default values."""
    result: dict[str, object] = {"effect": fault.effect.value}
    for name in _FIELDS:
        value = getattr(fault, name)
        if value == getattr(_DEFAULTS, name) or name == "effect":
            continue
        if isinstance(value, Service):
            result[name] = value.value
        else:
            result[name] = dict(value) if name == "headers" else value
    return result


def fault_from_json(data: Mapping[str, object]) -> Fault:
    """Parse a rule; raise ValueError with one sentence that names the bad field."""
    if unknown := sorted(set(data) - set(_FIELDS)):
        raise ValueError(f"unknown fault field {unknown[0]!r}; known are {', '.join(_FIELDS)}")
    return Fault(
        service=_service(data.get("service")),
        vm=_text(data, "vm"),
        method=_text(data, "method"),
        path_contains=_text(data, "path_contains"),
        path_ends=_text(data, "path_ends"),
        effect=_effect(data.get("effect")),
        status=int(_number(data, "status", 503, low=200, high=599)),
        body=_text(data, "body") or "",
        headers=_headers(data.get("headers", {})),
        delay_s=_number(data, "delay_s", 0, high=3600),
        operation=_outcome(data.get("operation", "failed")),
        times=None
        if data.get("times") is None
        else int(_number(data, "times", 0, low=1, high=10**9)),
        after=int(_number(data, "after", 0, high=10**9)),
        until=None if data.get("until") is None else _number(data, "until", 0),
    )


_FIELDS = tuple(Fault.__dataclass_fields__)


def _effect(value: object) -> Effect:
    try:
        return Effect(value)
    except ValueError:
        known = ", ".join(effect.value for effect in Effect)
        raise ValueError(f"effect must be one of {known}, not {value!r}") from None


def _outcome(value: object) -> Literal["failed", "canceled", "no_effect"]:
    match value:
        case "failed":
            return "failed"
        case "canceled":
            return "canceled"
        case "no_effect":
            return "no_effect"
        case _:
            raise ValueError(f"operation must be failed, canceled or no_effect, not {value!r}")


def _service(value: object) -> Service | None:
    if value is None:
        return None
    try:
        return Service(value)
    except ValueError:
        known = ", ".join(service.value for service in Service)
        raise ValueError(f"service must be one of {known}, not {value!r}") from None


def _text(data: Mapping[str, object], name: str) -> str | None:
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {value!r}")
    return value


def _number(
    data: Mapping[str, object],
    name: str,
    default: float,
    *,
    low: float = 0,
    high: float = math.inf,
) -> float:
    value = data.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        limit = f"at least {low}" if math.isinf(high) else f"from {low} to {high}"
        raise ValueError(f"{name} must be a number {limit}, not {value!r}")
    return value


def _headers(value: object) -> tuple[tuple[str, str], ...]:
    pairs: tuple[tuple[str, object], ...] = (("headers", value),)
    if isinstance(value, dict):
        pairs = tuple((str(k), v) for k, v in cast("dict[object, object]", value).items())
    for name, text in pairs:
        if not isinstance(text, str) or any(c in name + text for c in "\r\n\0"):
            raise ValueError(f"header {name!r} must have a text of one line, not {text!r}")
    return tuple((name, str(text)) for name, text in pairs)


def _key(request: Request) -> tuple[Service, str, str]:
    return request.service, request.vm or "", request.path.casefold()


def _same(left: str, right: str) -> bool:
    return left.casefold() == right.casefold()
