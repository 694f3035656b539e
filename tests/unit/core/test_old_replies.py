"""Replies that are older than what Azure has shown before."""

from datetime import UTC, datetime, timedelta

import pytest

from controller.core.old_replies import LAG, ShownEtags

NOW = datetime(2030, 1, 1, tzinfo=UTC)
POOL = "/loadBalancers/web-lb/backendAddressPools/app"


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.fixture
def etags() -> ShownEtags:
    """A pool that was shown as "a", then as "b"."""
    shown = ShownEtags()
    shown.show(POOL, "a", NOW)
    shown.show(POOL, "b", later(10))
    return shown


def test_a_replaced_etag_is_that_of_an_old_reply(etags: ShownEtags) -> None:
    """Whichever way the id is spelled."""
    assert etags.is_old(POOL.upper(), "a", later(12))
    assert not etags.is_old(POOL, "b", later(12))
    assert not etags.is_old(POOL, "c", later(12))


def test_every_replaced_etag_is_remembered(etags: ShownEtags) -> None:
    """Two writes in a row leave two old states."""
    etags.show(POOL, "c", later(20))
    assert etags.is_old(POOL, "a", later(21))
    assert etags.is_old(POOL, "b", later(21))


def test_an_etag_that_lasts_is_believed(etags: ShownEtags) -> None:
    """No view is refused for ever, whatever Azure does."""
    at = later(10) + LAG + timedelta(seconds=1)
    assert not etags.is_old(POOL, "a", at)
    etags.show(POOL, "a", at)
    assert not etags.is_old(POOL, "a", at)
    assert etags.is_old(POOL, "b", at)


def test_resources_are_apart(etags: ShownEtags) -> None:
    """Another pool may have the same ETag: that of its load balancer."""
    assert not etags.is_old(POOL + "-2", "a", later(12))


def test_a_resource_without_etag_is_never_old(etags: ShownEtags) -> None:
    """Nothing is known of its order."""
    etags.show(POOL, "", later(20))
    etags.show(POOL, "", later(21))
    assert not etags.is_old(POOL, "", later(22))
    assert etags.is_old(POOL, "a", later(22))
