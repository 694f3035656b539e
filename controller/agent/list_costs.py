"""Whether resources are read by a list or one by one: whichever takes fewer requests.

Azure lists whole resource groups, page by page, and a group can contain a thousand resources that
do not matter. How many pages are needed is known only after they were read.
"""

from collections.abc import Collection

from controller.azure.http.arm_reader import Enough
from controller.azure.http.json_reader import Json
from controller.core.action_keys import ActionKey
from controller.core.azure_names import fold

LIST_PAGE = 50
"""The smallest page in which a list is assumed to come; every page is a read."""


class ListCosts:
    """What each list cost when it was last read, in requests."""

    def __init__(self) -> None:
        self._requests: dict[ActionKey, int] = {}

    def prefers_list(self, key: ActionKey, wanted: int) -> bool:
        """Return whether a list is expected to take fewer requests than `wanted` single reads."""
        expected = self._requests.get(key, -(-wanted // LIST_PAGE))
        return expected < wanted

    def learn(self, key: ActionKey, *, pages: int, missing: int) -> None:
        """Note what a list took: its pages, and a read for each resource that it did not show."""
        self._requests[key] = pages + missing


def enough_for(wanted: Collection[str]) -> Enough:
    """Return when to stop a list in which resources with these ids are searched.

    It stops when all were found, or when single reads of the rest take no more requests than the
    pages so far. In total that is at most twice what the cheaper way takes.
    """
    folded = frozenset(map(fold, wanted))

    def enough(entries: tuple[Json, ...], pages: int) -> bool:
        ids = (entry.get("id") for entry in entries)
        found = folded & {fold(each) for each in ids if isinstance(each, str)}
        return len(folded) - len(found) <= pages or len(found) == len(folded)

    return enough
