"""Which NICs an agent forgets: a scale set can replace its instances for ever.

Nothing is forgotten that may prove something about a VM of the set, of the ledger, of an event or
of a drain request, nor a NIC that a pool lists.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from controller.core.azure_names import fold, fold_address, nic_of, short
from controller.core.ledger import Ledger
from controller.core.resources import Nic, Pool, Vm, member_key

KEPT = timedelta(seconds=600)
"""How long before the inventory a NIC was last seen that is forgotten after it."""


def nics_of_deleted_vms(
    nics: Iterable[Nic],
    *,
    vms: Iterable[Vm],
    pools: Iterable[Pool],
    ledger: Ledger,
    is_named: Callable[[str], bool],
    read_at: datetime,
) -> tuple[Nic, ...]:
    """Return the NICs that nothing concerns any more.

    Args:
        nics: all that are known.
        vms: the VMs of the set, and those that were in it and are still known.
        pools: the pools that are read, each with all its members.
        ledger: what is recorded.
        is_named: returns whether an event, an entry or a drain request names a VM.
        read_at: when the inventory began that has read everything.
    """
    known, owners = set[str](), set[str]()
    for vm in vms:
        owners.add(fold(vm.vm_id))
        known |= {fold(nic_id) for nic_id in vm.nic_ids}
    for pool in pools:
        for member in pool.members:
            address = member.address.ip_address if member.address else ""
            known.add(fold_address(address) or fold(nic_of(member.ip_configuration_id)[0]))
    for entry in ledger.entries:
        owners.add(fold(entry.vm_id))
        # The place of a member has the id of its NIC, or its address.
        known |= {part for m in (*entry.memberships, *entry.lost) for part in member_key(m)}
    return tuple(
        nic
        for nic in nics
        if fold(nic.nic_id) not in known
        and known.isdisjoint(_addresses(nic))
        and fold(nic.vm_id) not in owners
        and not is_named(short(nic.vm_id))
        and nic.observed_at < read_at - KEPT
    )


def _addresses(nic: Nic) -> set[str]:
    return {fold_address(each.private_ip) for each in nic.ip_configurations if each.private_ip}
