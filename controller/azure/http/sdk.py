"""The parts of the Azure SDKs that are used at all times, and what is loaded late.

A standby does without these large modules:

- `cryptography`, 9 MB: both SDKs below import it, for client certificates and for encryption by the
  client. The agent uses neither, so it is never loaded. TLS and account keys do not need it.
- `azure.mgmt.network` and `azure.mgmt.compute`, 20 to 40 MB each: `sdk_clients` loads them in a
  thread, when a leader has something to do (`agent.sdk_loading`), or a command of an operator has.

So the agent imports these two SDKs from here only. A test starts agents and lists what they have
loaded.
"""

from controller.azure.http.late_modules import import_without

import_without("cryptography", "azure.identity.aio", "azure.storage.blob.aio")

from azure.identity.aio import (  # noqa: E402 -- they must be imported first without the other
    AzureCliCredential,
    ManagedIdentityCredential,
)
from azure.storage.blob.aio import (  # noqa: E402
    BlobClient,
    BlobLeaseClient,
    ContainerClient,
    StorageStreamDownloader,
)

__all__ = [
    "AzureCliCredential",
    "BlobClient",
    "BlobLeaseClient",
    "ContainerClient",
    "ManagedIdentityCredential",
    "StorageStreamDownloader",
]
