"""An agent's presence as its blob stores it; see `stored_json` for the rules. No I/O."""

from controller.core.agent_presence import MINOR, AgentPresence, SeenAgent
from controller.core.azure_names import fold
from controller.errors import ContractViolation
from controller.storage.stored_json import (
    OPTIONAL,
    Count,
    Instant,
    LongText,
    Stored,
    Text,
    dump,
    read,
)

MAJOR = 1
MAX_BODY_BYTES = 64 * 1024
"""A presence has less than 1 kB."""
FOLDER = ".agents/"
"""Between the name of the ledger's blob and that of the VM."""


class StoredPresence(Stored):
    """The whole content of the blob."""

    value_type = AgentPresence

    version: Text
    vm: Text
    release: LongText
    configuration: LongText
    started_at: Instant
    at: Instant
    period_s: Count
    stopped_at: Instant | None = OPTIONAL
    problem: LongText = ""
    set_id: Text = ""


def presence_blob_name(ledger_name: str, vm: str) -> str:
    """Return the name of the blob with the presence of a VM's agent, beside the ledger's blob."""
    return f"{ledger_name.removesuffix('.json')}{FOLDER}{fold(vm)}.json"


def presence_place(blob_name: str) -> tuple[str, str] | None:
    """Return the name of the ledger's blob and the folded VM; None for the name of another blob."""
    stem, folder, file = blob_name.rpartition(FOLDER)
    if not stem or not folder or "/" in file or not file.endswith(".json"):
        return None
    return f"{stem}.json", file.removesuffix(".json")


def encode_presence(presence: AgentPresence) -> bytes:
    """Return the presence as JSON."""
    return dump(presence, version=f"{MAJOR}.{MINOR}")


def decode_presence(body: bytes) -> AgentPresence:
    """Return the presence that `body` holds.

    Raises:
        ContractViolation: the content is something else, too large, or of another major version.
    """
    if len(body) > MAX_BODY_BYTES:
        raise ContractViolation(f"presence: {len(body)} bytes, the limit is {MAX_BODY_BYTES}")
    presence: AgentPresence = read(StoredPresence, body, what="presence", major=MAJOR)[0]
    return presence


def seen_agent(body: bytes | None, vm: str) -> SeenAgent:
    """Return what the content of a VM's presence blob shows, None for no blob; raises nothing."""
    if body is None:
        return SeenAgent(vm=vm)
    try:
        presence = decode_presence(body)
    except ContractViolation as error:
        return SeenAgent(vm=vm, problem=f"its presence cannot be read: {error}")
    if fold(presence.vm) != fold(vm):
        return SeenAgent(vm=vm, problem=f"its blob has the presence of {presence.vm[:64]}")
    return SeenAgent(vm=vm, presence=presence)
