"""Whether absence alone would have to prove that a VM is in no managed pool: it never suffices.

A resource group answers `ResourceGroupNotFound` for minutes. Where all that is left of a VM's NICs
and pools is that Azure does not find them, a VM that serves would pass for one that is out, and its
event would be acknowledged. So a NIC or pool is taken for deleted only while Azure shows its load
balancer without it, or another NIC or pool of the same resource group.

Pure: standard library only, no I/O, no clock.
"""

from controller.core.azure_names import resource_group_of
from controller.core.planning.views import Views
from controller.core.presence import Source
from controller.core.resources import Vm


def is_hidden(views: Views, vm: Vm) -> bool:
    """Return whether a NIC of a VM, or a managed pool, is missing without proof of its deletion."""
    return not all(_is_shown_or_deleted(views, each) for each in (*vm.nic_ids, *views.policy.pools))


def _is_shown_or_deleted(views: Views, resource_id: str) -> bool:
    if not views.missing(resource_id):
        return True
    presence = views.observed.presence_of(resource_id)
    if Source.LIST in presence.sources:
        return True  # Azure shows the load balancer, without the pool
    since = presence.since
    shown_at = views.groups_shown_at.get(resource_group_of(resource_id))
    return since is not None and shown_at is not None and shown_at >= since
