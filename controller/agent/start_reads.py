"""The reads of a start, each in more than one way: no single refusal may keep an agent waiting.

A request that Azure asked to leave alone for a while is not repeated before that, however often the
start is attempted. What works meanwhile is used.
"""

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from controller.agent.read_ways import Way, first_that_works, request_key
from controller.agent.retry_schedule import BackoffTable
from controller.azure.http.session import Azure
from controller.azure.imds_document import Instance
from controller.azure.vm_set import VmSet
from controller.clock import Clock, SystemClock
from controller.core.azure_names import SetKind, resource_group_of, short
from controller.core.planning.actions import ReadLoadBalancer
from controller.core.resources import LoadBalancer
from controller.errors import ControllerError, Denied, InvariantViolation, NotFound, SetupError

T = TypeVar("T")


class StartReads:
    """Reads what an agent or a command needs before anything else.

    Args:
        azure: the clients.
        clock: wall and monotonic clock.
        entropy: source of jitter.
    """

    def __init__(
        self, azure: Azure, *, clock: Clock | None = None, entropy: random.Random | None = None
    ) -> None:
        self._azure, self._clock = azure, clock or SystemClock()
        self.retries = BackoffTable(
            self._clock,
            entropy=entropy or random.SystemRandom(),
            on_failure=lambda: None,
            quiet=True,
        )
        """The waits that Azure has asked for."""
        self._instance: Instance | None = None

    def attempt(self) -> None:
        """Begin another attempt: forget every wait that Azure has not asked for."""
        self.retries = self.retries.only_asked()

    async def instance(self) -> Instance:
        """Return this VM; it is read once."""
        if self._instance is None:
            self._instance = await self._azure.imds.instance()
        return self._instance

    async def set_of(self, instance: Instance) -> VmSet:
        """Return the set of a VM.

        The list of the availability sets of its resource group shows both its set and the VMs of
        that. The metadata service names its scale set.

        Raises:
            SetupError: the VM is in no set, or in a uniform scale set.
            ControllerError: there was no answer.
        """
        compute, vm_id = self._azure.compute, instance.vm_id
        listed = Way(
            request_key(resource_group_of(vm_id), "availability sets"),
            "read the list of availability sets",
            lambda: compute.listed_set_of(vm_id),
        )

        async def known_by_id() -> VmSet:
            set_id = await self.once(
                vm_id, f"read {short(vm_id)}", lambda: compute.set_id_of(vm_id)
            )
            return await self._set(set_id)

        # Its own key has no wait: the two requests have.
        by_id = Way(request_key(vm_id, "set"), f"find the set of {short(vm_id)}", known_by_id)
        try:
            return await first_that_works([by_id], self.retries, self._clock.now)
        except (Denied, InvariantViolation, NotFound, SetupError):
            raise  # a missing role must be reported, although the list may be allowed
        except ControllerError as error:
            refused = error
        finally:
            self.retries.clear(by_id.key)
        try:
            if instance.scale_set_id:
                return await self._set(instance.scale_set_id)
            return await first_that_works([listed], self.retries, self._clock.now)
        except InvariantViolation:
            raise
        except ControllerError:
            raise refused from None

    async def _set(self, set_id: str) -> VmSet:
        what = f"read the {SetKind.of(set_id).value} {short(set_id)}"
        return await self.once(set_id, what, lambda: self._azure.compute.read_set(set_id))

    async def load_balancer(self, load_balancer_id: str) -> LoadBalancer:
        """Return a load balancer, by itself or from the list of its resource group.

        Raises:
            NotFound: it was not found; one such reply is no proof.
            ControllerError: it could not be read in any way.
        """
        network, what = self._azure.network, str(ReadLoadBalancer(load_balancer_id))
        ways = (
            Way(
                request_key(load_balancer_id, "get"),
                what,
                lambda: network.load_balancer(load_balancer_id),
            ),
            Way(
                request_key(load_balancer_id, "list"),
                what,
                lambda: network.listed_load_balancer(load_balancer_id),
            ),
        )
        return await first_that_works(ways, self.retries, self._clock.now)

    async def once(self, resource_id: str, what: str, read: Callable[[], Awaitable[T]]) -> T:
        """Read one resource by itself, unless Azure has asked to wait.

        Raises:
            ControllerError: it could not be read.
        """
        way = Way(request_key(resource_id, "get"), what, read)
        return await first_that_works([way], self.retries, self._clock.now)
