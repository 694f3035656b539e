"""What the process that carries out a rolling run writes of it into the requests blob."""

from dataclasses import replace
from datetime import timedelta

from controller.core.drain_requests import DrainRequest, DrainRequests, Edit, RollingRun
from controller.errors import NotDone
from controller.operator.drain_client import DrainClient


class OwnRun:
    """The changes that one process makes to its run; each can be applied again.

    Args:
        client: in whose name.
        process_id: of the process.
        for_s: how long a drain lasts after the last heartbeat.
    """

    def __init__(self, client: DrainClient, process_id: str, *, for_s: float) -> None:
        self._client, self._process_id, self._for_s = client, process_id, for_s

    def of(self, requests: DrainRequests) -> RollingRun:
        """Return the run; raise NotDone if it is not that of this process any more."""
        run = requests.roll
        if run is None or run.process_id != self._process_id or run.ended_at is not None:
            raise NotDone(
                "the rolling run was abandoned, or another process has continued it, or its blob "
                "was deleted or restored"
            )
        return run

    def restoring(self, request: DrainRequest) -> Edit:
        """Return the edit that ends a request; if it was tried before, this may have ended it."""
        tried = False

        def edit(requests: DrainRequests) -> DrainRequests:
            nonlocal tried
            self.of(requests)
            if not tried:
                _refuse_withdrawn(requests, request)
            tried = True
            now, by = self._client.now(), self._client.requester
            return requests.ending([request.request_id], at=now, by=by)

        return edit

    def beating(self, requests: DrainRequests, drained: DrainRequest | None) -> DrainRequests:
        """Return the requests with one more heartbeat, and a later end of the drain."""
        run = self.of(requests)
        alive = replace(requests, roll=run.beating())
        if drained is not None:
            _refuse_withdrawn(requests, drained)
            if not requests.stands(drained.request_id, self._client.now()):
                raise NotDone(f"{drained.vm}: its drain has ended while the run worked on it")
            until = self._client.now() + timedelta(seconds=self._for_s)
            alive = alive.extending(drained.request_id, until)
        return alive

    def with_done(self, requests: DrainRequests, vm: str) -> DrainRequests:
        """Return the requests with one VM more that is done."""
        run = self.of(requests)
        return replace(requests, roll=replace(run, done=(*run.done, vm)))

    def with_end(self, requests: DrainRequests) -> DrainRequests:
        """Return the requests with the end of the run."""
        run = requests.roll
        if run is not None and run.process_id == self._process_id and run.ended_at is not None:
            return requests  # by a write whose reply was lost
        return replace(requests, roll=replace(self.of(requests), ended_at=self._client.now()))


def _refuse_withdrawn(requests: DrainRequests, request: DrainRequest) -> None:
    """Raise NotDone if a request was withdrawn."""
    found = requests.by_id(request.request_id)
    if found is not None and found.ended_at is not None:
        raise NotDone(
            f"{request.vm}: its drain was withdrawn by {found.ended_by} while the run worked on it"
        )
