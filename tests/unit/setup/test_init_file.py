"""The file that `lb-drain init` writes: what becomes of directories, modes and older files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.cli.terminal import stdout_console
from controller.config.loader import parse
from controller.errors import NotDone
from controller.setup.init import InitOptions, init, prepare

POOL = (
    "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/web-rg/providers"
    "/Microsoft.Network/loadBalancers/web-lb/backendAddressPools/"
)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def write(path: Path, pool: str, *, force: bool = False) -> None:
    """Run init without a question and without a request."""
    options = InitOptions(
        path=path,
        container_url="https://account.blob.core.windows.net/lb-drain",
        pools=(POOL + pool,),
        prompt=False,
        force=force,
    )
    init(options, stdout_console(), prepare(path, force=force))


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_the_agent_can_read_the_file(tmp_path: Path, mask: int) -> None:
    """It is another user than the one who runs init, whose umask may be strict."""
    path = tmp_path / "etc" / "lb-drain" / "config.toml"
    with umask(mask):
        write(path, "app")
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.parent.stat().st_mode & 0o777 == 0o755
    assert path.parent.parent.stat().st_mode & 0o777 == 0o755


def test_no_older_file_is_lost(tmp_path: Path) -> None:
    """After two runs of init --force the first file is still there."""
    path = tmp_path / "config.toml"
    path.write_text("# by hand\n")
    write(path, "app", force=True)
    write(path, "other", force=True)
    assert (tmp_path / "config.toml.before").read_text() == "# by hand\n"
    second = (tmp_path / "config.toml.before.1").read_text()
    assert parse(second, {}, path).settings.backend_pools[0].id == POOL + "app"
    assert parse(path.read_text(), {}, path).settings.backend_pools[0].id == POOL + "other"


def test_a_directory_that_this_user_may_not_search(tmp_path: Path) -> None:
    """The command ends with a message that states what to do, not with a traceback."""
    directory = tmp_path / "etc"
    directory.mkdir()
    directory.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        with pytest.raises(NotDone, match="run this command as root, or name another file"):
            prepare(directory / "config.toml", force=False)
    finally:
        if is_root:
            os.seteuid(0)
        directory.chmod(0o755)
