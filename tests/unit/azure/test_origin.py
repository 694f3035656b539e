"""Which URLs belong to the service that a client was made for."""

from urllib.parse import urlsplit

import pytest

from controller.azure.http.origin import refuse_foreign
from controller.errors import ContractViolation

ARM = "https://management.azure.com"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ARM, "https://management.azure.com:443/subscriptions/s/x?$skiptoken=1"),
        (f"{ARM}:443", "https://management.azure.com/subscriptions/s/x"),
        (ARM, "HTTPS://Management.Azure.COM/subscriptions"),
        (ARM, "https://westeurope.management.azure.com:443/operations/1"),
        ("https://account.blob.core.windows.net/c", "https://ACCOUNT.blob.core.windows.net:443/c"),
        ("http://127.0.0.1/c", "http://127.0.0.1:80/c"),
        ("https://127.0.0.1:8443", "https://127.0.0.1:8443/x"),
    ],
)
def test_a_default_port_and_case_make_no_difference(ours: str, theirs: str) -> None:
    """A default port and the case of a host do not change the origin."""
    refuse_foreign(theirs, urlsplit(ours))


@pytest.mark.parametrize(
    "theirs",
    [
        "https://management.azure.com.example.org/x",
        "https://evilmanagement.azure.com/x",
        "https://management.azure.com:443@example.org/x",
        "https://azure.com/x",
        "https://management.azure.com:444/x",
        "https://management.azure.com:80/x",
        "https://management.azure.com:0/x",
        "http://management.azure.com/x",
        "http://management.azure.com:443/x",
        "/subscriptions/s",
        "",
    ],
)
def test_another_service_is_refused(theirs: str) -> None:
    """Another host, another port or plain http is another service and gets no token."""
    with pytest.raises(ContractViolation, match="which is not management"):
        refuse_foreign(theirs, urlsplit(ARM))


@pytest.mark.parametrize(
    "url", ["https://[/", "https://management.azure.com:port/", "https://a:99999/"]
)
def test_an_invalid_url_is_a_violation(url: str) -> None:
    """A URL that cannot be split is refused."""
    with pytest.raises(ContractViolation):
        refuse_foreign(url, urlsplit(ARM))


def test_a_message_names_another_port() -> None:
    """A refusal for a port names that port."""
    with pytest.raises(ContractViolation, match=r"azure\.com:444, which"):
        refuse_foreign(f"{ARM}:444/x", urlsplit(ARM))
