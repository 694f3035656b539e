"""`lb-drain test notifications` with receivers on real sockets."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from controller.cli.main import main
from tests.support.receivers import CANARY, Hook, open_hook, open_mailbox

REST = """
[[backend_pools]]
id = "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg/providers/\
Microsoft.Network/loadBalancers/web/backendAddressPools/app"

[election]
container_url = "https://127.0.0.1/account/lb-drain"
"""
MAIL = """
kind = "email"
host = "127.0.0.1"
encryption = "none"
sender = "lb-drain@example.com"
to = ["oncall@example.com"]
"""


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    """A receiver whose URL is a secret."""
    async with open_hook(f"/services/{CANARY}") as opened:
        yield opened


class Trial:
    """The command with a configuration of its own."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self._capsys = directory / "config.toml", capsys

    async def run(self, *channels: str) -> tuple[int, str]:
        """Run it with these channels; return exit code and output, which has no secret."""
        tables = "".join(f"[[notifications]]\n{each}\n" for each in channels)
        self.path.write_text(REST + tables)
        arguments = ["test", "notifications", "--config", str(self.path)]
        with pytest.raises(SystemExit) as ended:
            await asyncio.to_thread(main, arguments)
        captured = self._capsys.readouterr()
        assert CANARY not in captured.out + captured.err
        return int(ended.value.code or 0), captured.out + captured.err


@pytest.fixture
def trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Trial:
    """Return the command."""
    return Trial(tmp_path, capsys)


def post(url: str, kind: str = "slack", more: str = "") -> str:
    return f'kind = "{kind}"\nurl = "{url}"\n{more}'


async def test_each_channel_gets_one_message(hook: Hook, trial: Trial) -> None:
    """Whatever `on` and a template say, it arrives marked TEST, and the reply is shown."""
    narrow = 'on = ["failed"]\ntemplate = "{level}: {text}"\n'
    async with open_mailbox() as box:
        code, out = await trial.run(
            post(hook.url), post(hook.url, "webhook", narrow), MAIL + f"port = {box.port}\n"
        )
    assert (code, out.splitlines()) == (
        0,
        [
            "notifications[0] (slack): delivered, status 200",
            "notifications[1] (webhook): delivered, status 200",
            "notifications[2] (email): delivered, the mail server accepted it",
        ],
    )
    [mail] = box.mails
    assert mail["Subject"] == "[lb-drain] TEST: Notification"
    slack = next(each for each in hook.bodies if "happening" not in each)
    webhook = next(each for each in hook.bodies if "happening" in each)
    assert slack["text"].startswith("TEST: Notification\nTEST: this is a test")
    assert webhook["happening"] == "test"
    assert webhook["text"].startswith("TEST: info: this is a test")


@pytest.mark.parametrize(
    ("script", "headers", "reply", "remedy"),
    [
        (404, {}, "status 404", "check the URL"),
        (403, {}, "status 403", "check the URL"),
        (400, {}, "status 400", "kind of this receiver"),
        (302, {"Location": f"http://127.0.0.1:1/{CANARY}"}, "status 302", "no redirect"),
        (429, {"Retry-After": "3600"}, "status 429", "try again later"),
        (500, {}, "status 500", "try again later"),
    ],
)
async def test_a_refusal_names_the_remedy(
    hook: Hook, trial: Trial, script: int, headers: Mapping[str, str], reply: str, remedy: str
) -> None:
    """One attempt, the status, what to do, and exit code 1; no secret of URL or reply."""
    hook.script, hook.headers = [script], dict(headers)
    code, out = await trial.run(post(hook.url))
    first, second = out.splitlines()
    assert (code, first) == (1, f"notifications[0] (slack): FAILED, {reply}")
    assert remedy in second
    assert hook.requests == 1


async def test_one_failure_leaves_the_others(hook: Hook, trial: Trial) -> None:
    """A receiver that is not there, and a secret that is not set, do not stop the next channel."""
    code, out = await trial.run(
        post(f"http://127.0.0.1:1/{CANARY}"),
        'kind = "teams"\nurl_env = "NOT_SET_C4N"\n',
        post(hook.url),
    )
    assert code == 1
    assert "notifications[0] (slack): FAILED, the receiver cannot be reached" in out
    assert "firewall" in out
    assert "notifications[1] (teams): FAILED, has url_env, but that variable is not set" in out
    assert "notifications[2] (slack): delivered, status 200" in out


async def test_a_mail_server_that_refuses(trial: Trial) -> None:
    """The code of the mail server is shown without its text."""
    async with open_mailbox() as box:
        box.script = [f"554 {CANARY} go away"]
        code, out = await trial.run(MAIL + f"port = {box.port}\n")
    assert code == 1
    assert "FAILED, SMTP status 554" in out
    assert "check sender and to" in out


async def test_without_a_channel(trial: Trial) -> None:
    """There is nothing to test, which is a failure: no notification would be sent."""
    code, out = await trial.run()
    assert code == 1
    assert f"{trial.path} has no [[notifications]]" in out
