"""Names and ids of Azure, as people see them."""

import pytest

from controller.core.azure_names import group_name


@pytest.mark.parametrize(
    ("resource_id", "name"),
    [
        ("/subscriptions/s/resourceGroups/Web-RG/providers/M/availabilitySets/web", "Web-RG"),
        ("/subscriptions/s/RESOURCEGROUPS/web-rg", "web-rg"),
        ("web", ""),
        ("", ""),
    ],
)
def test_the_name_of_a_resource_group_keeps_its_spelling(resource_id: str, name: str) -> None:
    """It is shown to people."""
    assert group_name(resource_id) == name
