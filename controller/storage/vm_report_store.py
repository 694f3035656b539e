"""The blobs with the reports of the VMs, beside the ledger: one writer each, the VM's own agent."""

from controller.azure.blob import StateBlob
from controller.core.azure_names import fold
from controller.core.vm_report import VmReport
from controller.errors import ContractViolation, NotFound
from controller.storage.own_blob import OwnBlob
from controller.storage.vm_report_json import decode_report, encode_report


def vm_report_blob_name(ledger_name: str, vm: str) -> str:
    """Return the name of the blob with a VM's report, from the name of the ledger's blob."""
    return f"{ledger_name.removesuffix('.json')}.vms/{fold(vm)}.json"


class VmReportWriter:
    """Writes the report of one VM."""

    def __init__(self, blob: StateBlob) -> None:
        self._own = OwnBlob(blob)

    async def write(self, report: VmReport) -> None:
        """Replace the report; raise as `OwnBlob.replace`."""
        await self._own.replace(encode_report(report))


async def read_vm_report(blob: StateBlob, vm: str) -> VmReport | None:
    """Return the report of a VM; None without one.

    Raises:
        ContractViolation: the content is no report, or the report of another VM.
        ControllerError: it could not be read.
    """
    try:
        content = await blob.read()
    except NotFound:
        return None
    report = decode_report(content.body)
    if fold(report.vm) != fold(vm):
        raise ContractViolation(
            f"the blob {blob.url} holds the report of {report.vm[:64]}: delete it, the agent on "
            f"{vm} writes it again"
        )
    return report
