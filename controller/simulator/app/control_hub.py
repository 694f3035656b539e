"""Changes of the Azure Stack Hub through the control endpoint."""

from typing import cast

from controller.simulator.app.control_input import ControlCall, checked, only
from controller.simulator.services.hub import status_xml
from controller.simulator.world.hub import RunResult


def start_update(call: ControlCall) -> object:
    """Start or resume a run of an update. Without `outage_after_s`, the API answers from now on."""
    body, hub, now = call.body, call.world.hub, call.world.now
    only(body, "name", "run_s", "result", "resume", "outage_after_s", "outage_s")
    name = str(checked("name", body.get("name"), str))
    run_s = cast("float", checked("run_s", body.get("run_s", 30.0), float))
    result = cast("RunResult", checked("result", body.get("result", "succeeds"), RunResult))
    resume = bool(checked("resume", body.get("resume", False), bool))
    after_s = cast(
        "float | None", checked("outage_after_s", body.get("outage_after_s"), float | None)
    )
    outage_s = cast("float | None", checked("outage_s", body.get("outage_s"), float | None))
    if not name or "/" in name:
        raise ValueError("name must be the name of an update, such as Microsoft1.2108.2.65")
    if outage_s is not None and after_s is None:
        raise ValueError("outage_s needs outage_after_s")
    run = hub.start(name, now, run_s=run_s, result=result, resume=resume)
    if after_s is None:
        hub.bring_back()
    else:
        hub.take_down(at=now + after_s, for_s=outage_s)
    return {"update": name, "run": run.run_id}


def update_status(call: ControlCall) -> object:
    """Return what a privileged endpoint prints."""
    return {"xml": status_xml(call.world, call.world.now)}
