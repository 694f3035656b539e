"""The digest by which agents see that their configurations differ."""

import pytest

from controller.agent.startup import NOT_CHOSEN, configuration_digest
from controller.config.schema import Settings

POOL = (
    "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg/providers"
    "/Microsoft.Network/loadBalancers/web/backendAddressPools/app"
)


def settings(**policy: object) -> Settings:
    return Settings.model_validate(
        {
            "backend_pools": [{"id": POOL}],
            "election": {"container_url": "https://account.blob.core.windows.net/lb-drain"},
            "policy": policy,
        }
    )


@pytest.mark.parametrize("mechanism", ["probe", "admin-state"])
def test_another_mechanism_is_another_configuration(mechanism: str) -> None:
    """A set whose agents take VMs out in different ways is reported."""
    assert configuration_digest(settings(mechanism=mechanism)) != configuration_digest(settings())


def test_what_is_not_chosen_leaves_no_trace() -> None:
    """An agent of an older version, which does not know the choice, has the same digest."""
    assert NOT_CHOSEN in repr(settings().core_policy())
    assert configuration_digest(settings(mechanism="pool")) == configuration_digest(settings())
