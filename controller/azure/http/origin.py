"""Origins: which URLs belong to the service that a client was made for.

A reply can name the next URL (`nextLink`, `Azure-AsyncOperation`, `Location`), and the token is
sent there. Azure writes the default port into some of these URLs and leaves it out of others
(recorded: `nextLink` of a list of VMs with more than one page names `:443`), so a default port and
an absent port are the same origin.
"""

from urllib.parse import SplitResult, urlsplit

from controller.core.printable import excerpt
from controller.errors import ContractViolation

_DEFAULT_PORTS = {"https": 443, "http": 80}


def refuse_foreign(url: str, service: SplitResult) -> None:
    """Refuse a URL that does not belong to `service`.

    It belongs to the service if scheme and port are equal and the host is the same or, for
    regional names, a subdomain.

    Raises:
        ContractViolation: the URL belongs to another service, or is not a URL.
    """
    try:
        target = urlsplit(url)
        scheme, host, port = _origin(target)
    except ValueError as error:
        raise ContractViolation(
            f"a reply contains an invalid URL ({excerpt(str(error))})"
        ) from error
    our_scheme, our_host, our_port = _origin(service)
    same_host = host == our_host or host.endswith("." + our_host)
    if (scheme, port) != (our_scheme, our_port) or not same_host:
        shown = f"{excerpt(scheme)}://{excerpt(host)}" + (f":{target.port}" if target.port else "")
        raise ContractViolation(f"a reply refers to {shown}, which is not {service.netloc}")


def _origin(url: SplitResult) -> tuple[str, str, int | None]:
    """Return scheme, host and port, equal for equal origins. Raises ValueError for a bad port."""
    scheme = url.scheme.casefold()
    port = _DEFAULT_PORTS.get(scheme) if url.port is None else url.port
    return scheme, (url.hostname or "").casefold(), port
