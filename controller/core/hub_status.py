"""What a privileged endpoint of Azure Stack Hub reports: the XML of `Get-AzureStackUpdateStatus`.

The document describes the newest update and its steps; each element has an attribute `Status`.
Microsoft documents the steps only ("Monitor updates in Azure Stack Hub using the privileged
endpoint"), so the status of the whole is looked for in the root first, then below it. Pure.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from controller.core.azure_names import fold
from controller.core.hub_updates import RunState
from controller.core.printable import excerpt
from controller.errors import ContractViolation

_MEANINGS = {
    **dict.fromkeys(("running", "inprogress"), RunState.IN_PROGRESS),
    **dict.fromkeys(("completed", "success", "succeeded"), RunState.SUCCEEDED),
    **dict.fromkeys(("failed", "error", "canceled", "cancelled"), RunState.FAILED),
}
_LONGEST_STATUS = 60
_BYTE_ORDER_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_DECLARATION = re.compile(r"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStatus:
    """The state of the newest update, as a privileged endpoint reports it."""

    status: str
    """As it is spelled there."""
    step: str = ""
    """The innermost step that has failed, or that is in progress."""

    @property
    def state(self) -> RunState:
        """What the status means."""
        return _MEANINGS.get(fold(self.status), RunState.UNKNOWN)


def read_status(output: bytes) -> EndpointStatus:
    """Return the status in what a command has printed. Text around the XML is left out.

    Raises:
        ContractViolation: there is no XML with a status in it.
    """
    text = _decoded(output)
    start = text.find("<")
    if start < 0:
        raise ContractViolation(f"it printed no XML: {excerpt(text, limit=120) or 'nothing'}")
    if _DECLARATION.search(text):
        # Entities can expand to gigabytes. The cmdlet prints none.
        raise ContractViolation("it printed XML with a document type, which is refused")
    try:
        root = ET.fromstring(text[start : text.rfind(">") + 1])  # noqa: S314 -- no entities, above
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise ContractViolation(f"it printed no valid XML ({excerpt(str(error))})") from None
    status = next(_statuses(root), "")
    if not status:
        raise ContractViolation("it printed XML without a Status")
    return EndpointStatus(status=excerpt(status, limit=_LONGEST_STATUS), step=_step(root))


def _decoded(output: bytes) -> str:
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if output.startswith(mark)), "")
    return output.decode(encoding or "utf-8-sig", errors="replace")


def _statuses(root: ET.Element) -> Iterator[str]:
    """Yield every status, that of the whole first."""
    for element in root.iter():
        attribute = _attribute(element, "status")
        below = (element.text or "").strip() if fold(element.tag) == "status" else ""
        yield from filter(None, (attribute, below))


def _step(root: ET.Element) -> str:
    """Return the name of the innermost step with an error, or else of the one in progress."""
    for wanted in (RunState.FAILED, RunState.IN_PROGRESS):
        found = [
            _attribute(each, "name")
            for each in root.iter()
            if _MEANINGS.get(fold(_attribute(each, "status"))) is wanted
        ]
        if named := [each for each in found if each]:
            return excerpt(named[-1], limit=120)
    return ""


def _attribute(element: ET.Element, name: str) -> str:
    return next((text.strip() for key, text in element.attrib.items() if fold(key) == name), "")
