"""Access: managed identity tokens, role assignments and request quotas.

Actions and data actions are separate, as in Azure: all actions on a storage account do not include
the permission to read a blob in it. Every requested permission is recorded, granted or refused.
"""

import base64
import hashlib
import hmac
import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from controller.simulator.world.bodies import key

OPERATOR = "operator"
"""The principal of a test or a demo script: it has every permission and is always reachable."""

OPERATOR_CLIENT_ID = "0b5e7a1c-3f64-4d27-9a58-6c1d2e8f7b90"
"""Client id of the identity of an operator, which every VM has; it has every permission."""

CONTAINERS = "Microsoft.Storage/storageAccounts/blobServices/containers"
BLOB_CONTRIBUTOR = frozenset({f"{CONTAINERS}/blobs/{verb}" for verb in ("read", "write", "delete")})
"""The data actions that matter here of the built-in role Storage Blob Data Contributor."""

LEAST_PRIVILEGE = frozenset(
    {
        "Microsoft.Compute/virtualMachines/read",
        "Microsoft.Compute/virtualMachines/instanceView/read",
        "Microsoft.Compute/availabilitySets/read",
        "Microsoft.Network/networkInterfaces/read",
        "Microsoft.Network/networkInterfaces/write",
        "Microsoft.Network/virtualNetworks/subnets/join/action",
        "Microsoft.Network/virtualNetworks/subnets/joinLoadBalancer/action",
        "Microsoft.Network/virtualNetworks/joinLoadBalancer/action",
        "Microsoft.Network/networkSecurityGroups/join/action",
        "Microsoft.Network/publicIPAddresses/join/action",
        "Microsoft.Network/applicationSecurityGroups/joinIpConfiguration/action",
        "Microsoft.Network/applicationGateways/backendAddressPools/join/action",
        "Microsoft.Network/virtualNetworkTaps/join/action",
        "Microsoft.Network/loadBalancers/read",
        "Microsoft.Network/loadBalancers/inboundNatRules/join/action",
        "Microsoft.Network/loadBalancers/frontendIPConfigurations/join/action",
        "Microsoft.Network/loadBalancers/backendAddressPools/read",
        "Microsoft.Network/loadBalancers/backendAddressPools/write",
        "Microsoft.Network/loadBalancers/backendAddressPools/join/action",
        "Microsoft.Network/locations/operations/read",
        "Microsoft.Resources/subscriptions/read",
        "Microsoft.Resources/subscriptions/resourceGroups/read",
        f"{CONTAINERS}/read",
        f"{CONTAINERS}/write",
    }
)
"""The default role of the identities of the VMs."""

RULE_HEALTH = frozenset(
    {
        "Microsoft.Network/loadBalancers/loadBalancingRules/health/action",
        "Microsoft.Network/locations/operationResults/read",
    }
)
"""The further permissions to read the health of a rule; the default role does not have them."""

ACKNOWLEDGE = frozenset({"Microsoft.Maintenance/scheduledevents/acknowledge/action"})
"""The further permission to acknowledge an event through Resource Manager."""

MAINTENANCE = frozenset(
    {
        "Microsoft.Compute/virtualMachines/performMaintenance/action",
        "Microsoft.Compute/locations/operations/read",
    }
)
"""The further permissions to start planned maintenance; agents do not have them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """The content of an access token. Times in epoch seconds."""

    principal: str
    audience: str
    issued_at: int
    expires_at: int


class Issuer:
    """Issues and verifies tokens. They are signed, so the world does not store them."""

    def __init__(self, secret: bytes, tenant: str) -> None:
        self._secret, self._tenant = secret, tenant
        self._current: dict[tuple[str, str], tuple[Token, str]] = {}

    def issue(
        self, principal: str, audience: str, now: float, lifetime_s: float
    ) -> tuple[Token, str]:
        """Return a token. Like IMDS, return the same token until half its lifetime has passed."""
        cached = self._current.get((principal, audience))
        if cached is not None and now < (cached[0].issued_at + cached[0].expires_at) / 2:
            return cached
        token = Token(
            principal=principal,
            audience=audience,
            issued_at=int(now),
            expires_at=int(now + lifetime_s),
        )
        # The command line client reads the tenant from the token of a managed identity.
        claims = {
            "aud": audience,
            "exp": token.expires_at,
            "iat": token.issued_at,
            "idtyp": "app",
            "nbf": token.issued_at,
            "iss": f"https://sts.windows.net/{self._tenant}/",
            "oid": principal,
            "sub": principal,
            "tid": self._tenant,
        }
        text = ".".join(
            (_encode(b'{"alg":"HS256","typ":"JWT"}'), _encode(json.dumps(claims).encode()))
        )
        self._current[principal, audience] = (token, f"{text}.{self._sign(text)}")
        return self._current[principal, audience]

    def read(self, text: str) -> Token | None:
        """Return the content of a token; None if this issuer did not issue it."""
        body, _, signature = text.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(body).encode()):
            return None
        claims = json.loads(_decode(body.rpartition(".")[2]))
        return Token(
            principal=claims["sub"],
            audience=claims["aud"],
            issued_at=claims["iat"],
            expires_at=claims["exp"],
        )

    def _sign(self, text: str) -> str:
        return _encode(hmac.new(self._secret, text.encode(), hashlib.sha256).digest())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def same_audience(left: str, right: str) -> bool:
    """Return whether two audiences are the same; a final slash does not matter."""
    return left.rstrip("/").casefold() == right.rstrip("/").casefold()


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Actions and data actions on a scope and everything below it. `*` is every action."""

    actions: frozenset[str]
    data_actions: frozenset[str]
    scope: str
    spelled_actions: frozenset[str]
    """The actions as they were given; the others are case folded."""
    spelled_data_actions: frozenset[str]
    spelled_scope: str

    def covers(self, action: str, scope: str, *, data: bool) -> bool:
        """Return whether this assignment allows `action` on `scope`."""
        held = self.data_actions if data else self.actions
        return _below(scope, self.scope) and ("*" in held or action in held)


class Roles:
    """Role assignments by principal, and revoked actions."""

    def __init__(self) -> None:
        self.assignments: dict[str, list[Assignment]] = {}
        self.granted: set[tuple[str, str]] = set()
        """Principal and action of every granted request, case folded."""
        self.refused: set[tuple[str, str]] = set()
        """Principal and action of every refused request, case folded."""
        self._revoked: set[tuple[str, str, str]] = set()

    def assign(
        self,
        principal: str,
        actions: Iterable[str],
        scope: str,
        *,
        data_actions: Iterable[str] = (),
    ) -> None:
        """Grant `actions` and `data_actions` over `scope`."""
        spelled, spelled_data = frozenset(actions), frozenset(data_actions)
        assignment = Assignment(
            actions=frozenset(each.casefold() for each in spelled),
            data_actions=frozenset(each.casefold() for each in spelled_data),
            scope=key(scope),
            spelled_actions=spelled,
            spelled_data_actions=spelled_data,
            spelled_scope=scope,
        )
        self.assignments.setdefault(principal.casefold(), []).append(assignment)

    def revoke(self, principal: str, action: str, scope: str = "") -> None:
        """Revoke one action or data action, on `scope` or everywhere."""
        self._revoked.add((principal.casefold(), action.casefold(), key(scope)))

    def reinstate(self, principal: str, action: str, scope: str = "") -> None:
        """Undo `revoke`."""
        self._revoked.discard((principal.casefold(), action.casefold(), key(scope)))

    def permit(self, principal: str, action: str, scope: str, *, data: bool = False) -> bool:
        """Return whether `principal` has `action` on `scope`, and record the request."""
        who, what = principal.casefold(), action.casefold()
        permitted = self._permitted(who, what, key(scope), data=data)
        (self.granted if permitted else self.refused).add((who, what))
        return permitted

    def _permitted(self, who: str, what: str, where: str, *, data: bool) -> bool:
        if any(
            (who, what) == (revoked_who, revoked_what) and _below(where, revoked_where)
            for revoked_who, revoked_what, revoked_where in self._revoked
        ):
            return False
        return any(entry.covers(what, where, data=data) for entry in self.assignments.get(who, []))


def _below(scope: str, ancestor: str) -> bool:
    return ancestor in ("", scope) or scope.startswith(ancestor + "/")


class Bucket:
    """A token bucket: Azure Resource Manager's quota per principal (Microsoft docs)."""

    def __init__(self, now: float) -> None:
        self._level: float | None = None
        self._at = now

    def take(
        self, now: float, *, size: int, refill_per_s: float, enforced: bool
    ) -> tuple[int, bool]:
        """Take one token; return the number left, and whether there was one."""
        level = size if self._level is None else self._level
        level = min(float(size), level + max(0.0, now - self._at) * refill_per_s)
        self._at = now
        allowed = level >= 1.0 or not enforced
        self._level = max(0.0, level - 1.0) if allowed else level
        return int(self._level), allowed


class Window:
    """Requests in the last second, for the limits of IMDS."""

    def __init__(self) -> None:
        self._seen: deque[float] = deque()

    def admit(self, now: float, limit: int) -> bool:
        """Count a request at `now`; False when `limit` requests came within the last second."""
        while self._seen and self._seen[0] <= now - 1.0:
            self._seen.popleft()
        if len(self._seen) >= limit:
            return False
        self._seen.append(now)
        return True
