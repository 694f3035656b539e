"""Api-versions: which one is used, and what follows when Azure refuses it."""

import json
import logging

import pytest

from controller.azure.http.api_versions import ApiVersion, supported_versions
from controller.azure.http.error_mapping import from_status
from controller.config.api_versions import COMPUTE_VERSIONS, NETWORK_VERSIONS, VersionRange
from controller.errors import NotFound, ServiceFault, VersionRefused

RANGE = VersionRange(
    key="azure.network_api_version",
    oldest="2022-01-01",
    pinned="2025-05-01",
    newest="2026-03-01",
)
REFUSED = (
    "No registered resource provider found for location 'eastus' and API version '2025-05-01' for "
    "type 'networkInterfaces'. The supported api-versions are '{}'. The supported locations are "
    "'westus, eastus'."
)


def refusal(*supported: str, code: str = "NoRegisteredProviderFound", status: int = 400) -> object:
    message = REFUSED.format(", ".join(supported))
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    return from_status(status, {}, body, "NIC read")


@pytest.mark.parametrize("tested", [COMPUTE_VERSIONS, NETWORK_VERSIONS])
def test_the_pinned_version_is_tested(tested: VersionRange) -> None:
    """The default lies in the range that can be used."""
    assert tested.oldest <= ApiVersion(tested).value <= tested.newest


def test_a_configured_version_is_used() -> None:
    """A version that the operator sets is used, also outside the tested range."""
    assert ApiVersion(RANGE, "2018-11-01").value == "2018-11-01"


@pytest.mark.parametrize(
    ("supported", "expected"),
    [
        (("2020-01-01", "2022-05-01", "2024-03-01"), "2024-03-01"),
        (("2024-03-01", "2027-01-01"), "2024-03-01"),
        (("2026-01-01", "2027-01-01"), "2026-01-01"),
        (("2026-03-01-preview", "2023-09-01"), "2023-09-01"),
        (("2018-11-01", "2020-01-01"), "2025-05-01"),
        (("2027-01-01",), "2025-05-01"),
        ((), "2025-05-01"),
        (("2024-03-01", "2025-05-01"), "2025-05-01"),
    ],
)
def test_the_newest_tested_version_that_azure_supports_is_used(
    supported: tuple[str, ...], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A refused version is replaced only by a stable one that the tests cover, with a warning."""
    version, error = ApiVersion(RANGE), refusal(*supported)
    assert isinstance(error, VersionRefused)
    with caplog.at_level(logging.WARNING):
        version.refused(error)
    assert version.value == expected
    assert bool(caplog.records) == (expected != "2025-05-01")


def test_the_remedy_names_the_key_and_a_version() -> None:
    """The operator learns which key to set, and to what."""
    version = ApiVersion(RANGE)
    for supported, expected in [
        (("2023-09-01",), 'set azure.network_api_version = "2023-09-01"'),
        (("2018-11-01", "2019-01-01-preview"), "the newest that Azure names is 2018-11-01"),
        ((), "set azure.network_api_version to a version that this cloud supports"),
    ]:
        error = refusal(*supported)
        assert isinstance(error, VersionRefused)
        assert expected in version.remedy(error)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "NoRegisteredProviderFound"),
        (400, "InvalidApiVersionParameter"),
        (404, "InvalidResourceType"),
    ],
)
def test_a_refused_version_is_no_missing_resource(status: int, code: str) -> None:
    """K7: a cloud without the api-version says nothing about whether the resource exists."""
    error = refusal("2023-09-01", code=code, status=status)
    assert isinstance(error, ServiceFault)
    assert not isinstance(error, NotFound)
    assert isinstance(error, VersionRefused)
    assert error.supported == ("2023-09-01",)


def test_a_long_list_of_versions_is_bounded() -> None:
    """A reply with more versions than any service has is cut."""
    text = "The supported versions are " + ", ".join(["2024-01-01-a" + "b" * n for n in range(999)])
    assert len(supported_versions(text)) == 200
