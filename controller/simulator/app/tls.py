"""A private CA and a server certificate for loopback, as PEM files in a directory.

Azure's SDK refuses to send a bearer token over plain HTTP, so the simulator needs TLS, and the
agents need a `ca_file` to trust. The key of the CA is never written.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext

import trustme

VALID_FOR = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """The PEM files."""

    ca_file: Path
    certificate_file: Path
    key_file: Path

    def server_context(self) -> SSLContext:
        """Return the TLS context of the simulated ARM and Blob endpoints."""
        context = SSLContext(PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate_file, self.key_file)
        return context


def create_certificates(directory: Path) -> Certificates:
    """Write a new CA, certificate and key into `directory`, which is created if it is missing."""
    directory.mkdir(parents=True, exist_ok=True)
    ca = trustme.CA(organization_name="lb-drain simulator")
    server = ca.issue_cert("localhost", "127.0.0.1", not_after=datetime.now(UTC) + VALID_FOR)
    paths = Certificates(
        ca_file=directory / "ca.pem",
        certificate_file=directory / "server.pem",
        key_file=directory / "server.key",
    )
    ca.cert_pem.write_to_path(paths.ca_file)
    paths.certificate_file.write_bytes(b"".join(pem.bytes() for pem in server.cert_chain_pems))
    write_private(paths.key_file, server.private_key_pem.bytes())
    return paths


def write_private(path: Path, content: bytes) -> None:
    """Write a file that other users can never read, not even for a moment."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
