"""VMs, NICs and pools as Azure reports them."""

from datetime import UTC, datetime

import pytest

from controller.core.resources import LoadBalancer, PoolKind


@pytest.mark.parametrize(
    ("sku", "expected"), [("Basic", True), ("basic", True), ("Standard", False), ("", False)]
)
def test_the_basic_sku_is_recognised_in_any_spelling(sku: str, expected: bool) -> None:
    """A load balancer is Basic whatever the case of its SKU name."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    found = LoadBalancer(load_balancer_id="/lb", sku=sku, pools=(), observed_at=now)
    assert found.basic is expected


def test_every_pool_kind_has_a_label() -> None:
    """The label of each kind is the one that Azure's documentation uses."""
    assert [kind.label for kind in PoolKind] == ["NIC-based", "IP-based", "empty"]
