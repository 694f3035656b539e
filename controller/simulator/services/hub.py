"""The administrator endpoint of a simulated Azure Stack Hub, and its sign-in, on one host.

Shapes of updates and runs: Microsoft's OpenAPI of Microsoft.Update.Admin. The sign-in has the paths
of Entra ID and of AD FS. It checks the secret of the service principal; of a certificate it checks
what the assertion claims and not its signature, because no certificate is registered.
"""

import base64
import json
from datetime import UTC, datetime
from urllib.parse import parse_qs
from xml.sax.saxutils import quoteattr

from controller.simulator.services.arm_errors import Refusal, error
from controller.simulator.services.arm_replies import Call, not_allowed, page, refuse
from controller.simulator.services.http_values import Delivery, Reply, Request
from controller.simulator.world.access import same_audience
from controller.simulator.world.bodies import Json
from controller.simulator.world.hub import AUDIENCE, CLIENT_ID, LOCATION, HubRun, HubUpdate
from controller.simulator.world.world import World

VERSIONS = ("2016-05-01", "2021-07-01")
FAILURE = "Type 'Restart' of Role 'Storage' raised an exception: the node did not come back."
STEP = "Restart Storage Hosts"


def handle(world: World, request: Request, now: float) -> Reply:
    """Answer one request to the Hub. While the API is gone, connections are reset."""
    world.advance(now)
    parts = request.path.strip("/").split("/")
    if parts[-1] == "openid-configuration":
        return _json(_openid_configuration(request, parts[0]))
    if request.path.casefold().rstrip("/") in _token_paths(world):
        return _token(world, request, now)
    if world.hub.gone(now):
        return Reply(status=503, delivery=Delivery.RESET)
    try:
        _authenticate(world, request, now)
        call = Call(world=world, request=request, principal=CLIENT_ID, rate_headers={})
        return _json(_resources(call, parts, now))
    except Refusal as refusal:
        return refuse(world, refusal, {})


def status_xml(world: World, now: float) -> str:
    """Return what Get-AzureStackUpdateStatus prints at a privileged endpoint."""
    runs = [run for update in world.hub.updates.values() for run in update.runs]
    newest = max(runs, key=lambda run: run.started_at, default=None)
    state = newest.state(now) if newest is not None else "Succeeded"
    status = {"Succeeded": "Success", "Failed": "Error"}.get(state, state)
    return (
        '<?xml version="1.0" encoding="utf-16"?>\n'
        f'<Action Type="CloudUpdate" Status={quoteattr(status)}><Steps>'
        f'<Step Name="Cloud Update" Status={quoteattr(status)}>'
        f"<Step Name={quoteattr(STEP)} Status={quoteattr(status)} /></Step></Steps></Action>"
    )


# Sign-in


def _origin(request: Request) -> str:
    return f"https://{request.headers.get('host', '')}"


def _token_paths(world: World) -> tuple[str, ...]:
    return "/adfs/oauth2/token", f"/{world.tenant}/oauth2/v2.0/token".casefold()


def _openid_configuration(request: Request, tenant: str) -> Json:
    base = f"{_origin(request)}/{tenant}"
    path = "oauth2" if tenant.casefold() == "adfs" else "oauth2/v2.0"
    return {
        "issuer": base if tenant.casefold() == "adfs" else f"{base}/v2.0",
        "authorization_endpoint": f"{base}/{path}/authorize",
        "token_endpoint": f"{base}/{path}/token",
    }


def _token(world: World, request: Request, now: float) -> Reply:
    given = {key: each[-1] for key, each in parse_qs(request.body.decode(errors="replace")).items()}
    client = given.get("client_id", "")
    if client != CLIENT_ID or not _proves(world, request, given):
        body = {
            "error": "invalid_client",
            "error_description": "AADSTS7000215: Invalid client secret provided.",
        }
        return _json(body, status=401)
    scope = given.get("scope", "").split(" ")[0]
    lifetime_s = world.settings.token_lifetime_s
    _, token = world.issuer.issue(client, scope.removesuffix("/.default"), now, lifetime_s)
    return _json({"token_type": "Bearer", "expires_in": int(lifetime_s), "access_token": token})


def _proves(world: World, request: Request, given: dict[str, str]) -> bool:
    assertion = given.get("client_assertion", "")
    if not assertion:
        return given.get("client_secret") == world.hub.secret
    try:
        payload = assertion.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        audience, issuer = str(claims["aud"]), str(claims["iss"])
    except (ValueError, LookupError, TypeError):
        return False
    return issuer == CLIENT_ID and audience.rstrip("/") == _origin(request) + request.path


# The administrator endpoint


def _authenticate(world: World, request: Request, now: float) -> None:
    token = world.issuer.read(request.headers.get("authorization", "").removeprefix("Bearer "))
    if token is None or token.expires_at <= now or not same_audience(token.audience, AUDIENCE):
        message = "The access token is missing, invalid, expired or for another audience."
        raise Refusal(401, error("InvalidAuthenticationToken", message))


def _resources(call: Call, parts: list[str], now: float) -> Json:
    world = call.world
    location = (
        f"subscriptions/{world.subscription}/resourcegroups/system.{LOCATION}/providers"
        f"/microsoft.update.admin/updatelocations/{LOCATION}/updates"
    ).split("/")
    if call.request.method != "GET":
        raise not_allowed(call.request.method)
    if call.version not in VERSIONS:
        message = f"The supported api-versions are '{', '.join(VERSIONS)}'."
        raise Refusal(400, error("InvalidApiVersionParameter", message))
    lower, depth = [part.casefold() for part in parts], len(location)
    updates = world.hub.updates
    if lower == location:
        return page(call, [_update(call, each, now) for each in updates.values()])
    if lower[:depth] == location and lower[depth + 1 :] == ["updateruns"]:
        update = updates.get(parts[depth])
        if update is not None:
            return page(call, [_run(call, update, run, now) for run in update.runs])
    raise Refusal(404, error("ResourceNotFound", f"{call.request.path} was not found."))


def _update(call: Call, update: HubUpdate, now: float) -> Json:
    return {
        "id": f"{call.request.path}/{update.name}",
        "name": update.name,
        "type": "Microsoft.Update.Admin/updateLocations/updates",
        "location": LOCATION,
        "properties": {"displayName": update.name, "state": update.state(now)},
    }


def _run(call: Call, update: HubUpdate, run: HubRun, now: float) -> Json:
    state = run.state(now)
    status = {"Succeeded": "Success", "Failed": "Error"}.get(state, state)
    step: Json = {
        "name": STEP,
        "errorMessage": FAILURE if state == "Failed" else "",
        "status": status,
        "steps": [],
    }
    return {
        "id": f"{call.request.path}/{run.run_id}",
        "name": f"{LOCATION}/{update.name}/{run.run_id}",
        "type": "Microsoft.Update.Admin/updateLocations/updates/updateRuns",
        "location": LOCATION,
        "properties": {
            "state": state,
            "timeStarted": datetime.fromtimestamp(run.started_at, UTC).isoformat(),
            "duration": _duration(run.duration_s(now)),
            "progress": {"name": "Cloud Update", "status": status, "steps": [step]},
        },
    }


def _duration(seconds: float) -> str:
    """Return a duration as the Hub writes it: `PT2H12M5.4579456S`."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"PT{hours}H{minutes}M{rest:.7f}S"


def _json(body: Json, *, status: int = 200) -> Reply:
    return Reply(
        status=status,
        headers={"content-type": "application/json; charset=utf-8"},
        body=json.dumps(body).encode(),
    )
