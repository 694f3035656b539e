"""What a privileged endpoint of Azure Stack Hub reports: the XML of `Get-AzureStackUpdateStatus`.

The document describes the newest update and its steps; each element has an attribute `Status`.
Microsoft documents the steps only ("Monitor updates in Azure Stack Hub using the privileged
endpoint"), so the status of the whole is looked for in the root first, then below it. Pure.
"""

from dataclasses import dataclass
from xml.parsers.expat import ExpatError, ParserCreate

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
    document = _Document()
    try:
        document.parser.Parse(text[start : text.rfind(">") + 1], True)
    except (ExpatError, ValueError) as error:
        raise ContractViolation(f"it printed no valid XML ({excerpt(str(error))})") from None
    if not document.statuses:
        raise ContractViolation("it printed XML without a Status")
    status = excerpt(document.statuses[0], limit=_LONGEST_STATUS)
    return EndpointStatus(status=status, step=document.step())


class _Document:
    """Takes the statuses and the steps from a document while it is parsed."""

    def __init__(self) -> None:
        self.statuses: list[str] = []
        """Every status, that of the whole first."""
        self._steps: list[tuple[str, str]] = []
        self._text: list[str] | None = None
        self.parser = ParserCreate()
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.StartElementHandler = self._start
        self.parser.CharacterDataHandler = self._characters
        self.parser.EndElementHandler = self._end

    def step(self) -> str:
        """Return the name of the last step with an error, or else of the last one in progress.

        It is the innermost one: steps come after those around them.
        """
        for wanted in (RunState.FAILED, RunState.IN_PROGRESS):
            found = [name for status, name in self._steps if _MEANINGS.get(fold(status)) is wanted]
            if found:
                return excerpt(found[-1], limit=120)
        return ""

    def _doctype(self, *_declaration: object) -> None:
        # Entities can expand to gigabytes. The cmdlet prints none.
        raise ContractViolation("it printed XML with a document type, which is refused")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        given = {fold(key): each.strip() for key, each in attributes.items()}
        if status := given.get("status", ""):
            self.statuses.append(status)
            if name := given.get("name", ""):
                self._steps.append((status, name))
        self._text = [] if fold(tag) == "status" else None

    def _characters(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def _end(self, _tag: str) -> None:
        if self._text and (status := "".join(self._text).strip()):
            self.statuses.append(status)
        self._text = None


def _decoded(output: bytes) -> str:
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if output.startswith(mark)), "")
    return output.decode(encoding or "utf-8-sig", errors="replace")
