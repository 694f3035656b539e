"""Recognises replies of Resource Manager that are older than what it has shown before.

Replies can come from a replica or a cache that lags behind the last write. The ETag of a resource
changes with every write and does not return (Azure REST API guidelines, conditional requests): a
reply with an ETag that a newer one has replaced is an old reply. It proves nothing, neither that a
VM is out nor that it is back.

Pure: standard library only, no I/O, no clock.
"""

from datetime import datetime, timedelta

from controller.core.azure_names import fold

LAG = timedelta(seconds=60)
"""How far replies may lag. After this time an ETag that came back is believed, so that no view is
refused for ever, whatever Azure does."""


class ShownEtags:
    """The ETags of resources, as replies have shown them. A resource without ETag is left out."""

    def __init__(self) -> None:
        self._newest: dict[str, str] = {}
        self._replaced: dict[str, dict[str, datetime]] = {}

    def is_old(self, resource_id: str, etag: str, at: datetime) -> bool:
        """Return whether a reply with this ETag, received at this instant, is an old one."""
        replaced_at = self._replaced.get(fold(resource_id), {}).get(etag)
        return replaced_at is not None and at - replaced_at <= LAG

    def forget(self, resource_id: str) -> None:
        """Forget a resource that is not read any more."""
        self._newest.pop(fold(resource_id), None)
        self._replaced.pop(fold(resource_id), None)

    def show(self, resource_id: str, etag: str, at: datetime) -> None:
        """Note the ETag of a reply that is not old."""
        key = fold(resource_id)
        before = self._newest.get(key, "")
        if not etag or etag == before:
            return
        replaced = self._replaced.get(key, {})
        kept = {each: since for each, since in replaced.items() if at - since <= LAG}
        self._replaced[key] = {**kept, before: at} if before else kept
        self._replaced[key].pop(etag, None)
        self._newest[key] = etag
