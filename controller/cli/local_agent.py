"""What the agent on this VM knows, over loopback: for when storage or Azure does not answer."""

from controller.core import strict_json
from controller.doctor.support_parts import agent_answer
from controller.errors import ContractViolation
from controller.status.overview_check import checked_overview
from controller.status.overview_schema import Overview

PATH = "/api/v1/overview"


async def agent_overview(listen: str) -> Overview:
    """Return the overview of the agent at this address.

    Raises:
        NotDone: no agent answers there.
        ContractViolation: what answers is no agent, or one of another version.
    """
    text = await agent_answer(listen, PATH)
    try:
        answer = strict_json.loads(text.encode(), "the answer", halves=True)
    except ContractViolation as error:
        raise ContractViolation(f"what answers at {listen}{PATH} is no agent: {error}") from None
    return checked_overview(answer)
