"""The kinds of log line that somebody may want to match, and the id that each has for ever.

A message's words may change with any version; its id does not. The journal has it as MESSAGE_ID, so
that `journalctl MESSAGE_ID=...` and alert rules find the kind and nothing else. Rules:

- Closed: what has no line in `KINDS` has no id. `deploy/README.md` lists the same kinds, and
  `deploy/lb-drain.catalog` explains each to `journalctl --catalog`: held together by a test.
- An id is never given to another kind, not even when its own is dropped.
- A line is of a kind because of its fields `event` and `outcome`, which `controller.logs` defines.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of log line."""

    name: str
    message_id: str
    """128 random bits, in lower case hexadecimal digits, as systemd wants them."""
    events: frozenset[str]
    outcomes: frozenset[str] = frozenset()
    """Which outcomes of the events; empty for any, and for none."""


def _kind(name: str, message_id: str, *events: str, outcomes: tuple[str, ...] = ()) -> Kind:
    return Kind(
        name=name,
        message_id=message_id,
        events=frozenset(events),
        outcomes=frozenset(outcomes),
    )


KINDS = (
    # An agent.
    _kind("started", "c66119875a3e4788830fe1664f2405fe", "start", outcomes=("started",)),
    _kind("waiting", "e8b333b3f8584fdd89961fc0dd137e51", "start", outcomes=("waiting",)),
    _kind("stopping", "8eb607702e2842b7bbd73bee728df91b", "stop"),
    _kind("blind", "7d52fdf966c74e608e040ac74da07391", "imds"),
    # Leadership.
    _kind("leads", "344a24817c7548e78cb0f349f966db4e", "leader"),
    _kind("yields", "71ba708830a24e56bce567db58372662", "yield"),
    _kind("lost", "ace2dcab60074e358bcdff467ec99e6a", "lease", outcomes=("lost", "lapsed")),
    _kind("no_leader", "27bd8a3af6aa42fc9e44f5c82832db9c", "no_leader"),
    _kind("leader_again", "7844bb62908d4d78b1d1714a5d7d5dae", "leader_again"),
    # A VM, in the order in which they come.
    _kind("requested", "ec930cb7f88f472d9fa63558138d7a1a", "requested"),
    _kind("recorded", "d8a32fb1dd43448e828e9e916c42fee7", "recorded"),
    _kind("out", "facccd2dc6a24f6ebc104e4e807eb453", "out"),
    _kind("acknowledged", "788f29c568b247f397a37b0a5e822d7f", "acknowledged"),
    _kind("restoring", "6f1bb10f3b2e418dad844eee8a12f24b", "restoring"),
    _kind("restored", "cc463ff77ab64f47803af34991a5d92a", "restored"),
    _kind("in_service", "60ce8b1bd56344f0b449bc4b3a8d2193", "in service"),
    _kind(
        "not_restored",
        "767e006e1e264fce8e394efb37088554",
        "gone",
        "forgotten",
        "membership dropped",
    ),
    # What asks for somebody.
    _kind("held", "9d8d4ae69474446db0d75f72a9688aa5", "held"),
    _kind("failed", "63bce808f7fb495ea88857c247b4f67c", "failure"),
    _kind("ledger_trouble", "419db38548d0493ab5628b3fef1934ac", "ledger", "requests"),
    _kind("untold", "4f3fd9146ac146bd9385b349e4d8af97", "notify"),
)


def kind_of(event: str, outcome: str) -> Kind | None:
    """Return the kind of a line with these fields; they are empty when it has none."""
    for kind in KINDS:
        if event in kind.events and (not kind.outcomes or outcome in kind.outcomes):
            return kind
    return None
