"""Words and phrases that do not belong in the texts of this project, each with what to write.

The texts follow the style of technical documentation: subject, verb, object; one idea a sentence;
the terms of Azure's documentation. A word is listed when it was used here with a private meaning,
or when its usual place is a sentence that has to be read twice.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern, and the advice that goes with it."""

    pattern: re.Pattern[str]
    advice: str


def _rules(*rows: tuple[str, str]) -> tuple[Rule, ...]:
    """Return the rules; a blank in a pattern also matches a line break."""
    return tuple(
        Rule(re.compile(pattern.replace(" ", r"\s+"), re.IGNORECASE), advice)
        for pattern, advice in rows
    )


PHRASES = _rules(
    (r"\btells? (?:if|whether)\b", "write 'return whether', 'report whether' or 'decide whether'"),
    (r"\b(?:un)?told\b", "write 'notified', 'reported', 'received' or 'instructed'"),
    (r"\btell(?:s|ing)?\b", "write 'report', 'notify', 'return' or 'show'"),
    (r"\b(?:say(?:s|ing)?|said)\b", "write 'report', 'state', 'show' or 'contain'"),
    (r"\bwho(?:m|se)?ever\b", "name the subject, or write 'any'"),
    (r"\b(?:somebody|someone|anybody|anyone|everybody|everyone)\b", "name the person or machine"),
    (r"\b(?:nobody|no one)\b", "name the person or machine, or write 'no agent', 'no operator'"),
    (r"\b(?:un)?mend(?:s|ed|ing)?\b", "write 'fix' or 'repair'"),
    (r"\bby hand\b", "write 'manual' or 'manually'"),
    (r"\bouting(?:s)?\b", "write 'drain episode'"),
    (r"\bstrangers?\b", "write 'other machine', 'other client' or 'unknown member'"),
    (r"\bglanc(?:e|es|ed|ing)\b", "write 'read' or 'cached read'"),
    (r"\bheralds?\b", "write 'dispatcher' or 'notification'"),
    (r"\bkin\b", "write 'family' or 'derivatives'"),
    (r"\bfor so long\b", "write 'for this long', 'how long' or the duration"),
    (r"\bof them\b", "name the things: 'two VMs', 'each event'"),
    (
        r"\b(?:an?|the|its|this|that|each|every|last|first|next|one|two|three) looks?\b",
        "write 'read', 'view' or 'check'",
    ),
    (r"\b(?:goes|went|go) quiet\b", "write 'stops responding'"),
    (r"\baloud\b", "write 'in a log line', 'in the ledger' or 'visibly'"),
    (r"\b(?:lest|anew|hence|thereof|whereof|whereupon|thither)\b", "use an everyday word"),
)
"""Apply anywhere in a text."""

OPENINGS = _rules(
    (r"Who(?:se|m)?\b", "begin with the subject, not with a clause that stands for it"),
    (r"For so long\b", "begin with the subject"),
)
"""Apply to the first words of a sentence that is not a question."""

NAME_PARTS = {
    "told": "reported, delivered",
    "tell": "report, notify",
    "tells": "reports, notifies",
    "say": "report, record",
    "says": "reports",
    "said": "reported",
    "look": "read, view",
    "looks": "reads, views",
    "outing": "drain_episode",
    "outings": "drain_episodes",
    "stranger": "other_machine",
    "strangers": "other_machines",
    "glance": "cached_read",
    "herald": "dispatcher",
    "mend": "fix",
    "mended": "fixed",
    "whoever": "a noun",
    "nobody": "a noun",
    "somebody": "a noun",
    "draft": "plan, builder",
    "leaves": "must_leave, sending",
}
"""Parts of names, between underscores or capitals, with what to write."""

_SENTENCE_END = re.compile(r"(?<=[.!?:;])\s+")
_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def text_findings(text: str) -> Iterator[tuple[int, str]]:
    """Yield the offset and the description of every listed word or phrase in a text."""
    for rule in PHRASES:
        for match in rule.pattern.finditer(text):
            yield match.start(), _described(match, rule)
    start = 0
    for end in [*_SENTENCE_END.finditer(text), None]:
        sentence = text[start : end.start() if end else None]
        offset = start + len(sentence) - len(sentence.lstrip(" \n#*->|"))
        for rule in OPENINGS:
            opening = rule.pattern.match(text, offset)
            if opening and opening.group()[0].isupper() and not sentence.rstrip().endswith("?"):
                yield offset, _described(opening, rule)
        start = end.end() if end else len(text)


def _described(match: re.Match[str], rule: Rule) -> str:
    return f"'{' '.join(match.group().split())}': {rule.advice}"


def name_findings(name: str) -> Iterator[str]:
    """Yield a description for every part of a name that is listed."""
    for part in _PART.findall(name):
        if advice := NAME_PARTS.get(part.lower()):
            yield f"name '{name}': instead of '{part.lower()}' write {advice}"
