"""`[[notifications]]`: what loads, what is refused, and that no secret is ever shown."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from controller.config import InvalidConfigError, Loaded, describe, load
from controller.core.happenings import Kind
from controller.notify_settings import TEMPLATE_FIELDS, Notification

POOL = (
    "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg/providers"
    "/Microsoft.Network/loadBalancers/web/backendAddressPools/app"
)
REST = (
    f'[[backend_pools]]\nid = "{POOL}"\n'
    '[election]\ncontainer_url = "https://account.blob.core.windows.net/lb-drain"\n'
)
CANARY = "C4NARY"
URL = f"https://hooks.example.com/services/{CANARY}"
HOOK = f'kind = "webhook"\nurl = "{URL}"\n'
MAIL = (
    'kind = "email"\nhost = "mail.example.com"\nsender = "lb-drain@example.com"\n'
    'to = ["oncall@example.com"]\n'
)
Load = Callable[..., Loaded]


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    def run(*channels: str, environ: Mapping[str, str] | None = None) -> Loaded:
        path = tmp_path / "config.toml"
        path.write_text(REST + "".join(f"[[notifications]]\n{each}\n" for each in channels))
        return load(path, environ or {})

    return run


@pytest.fixture
def problem(load_text: Load) -> Callable[..., str]:
    def run(*channels: str, environ: Mapping[str, str] | None = None) -> str:
        with pytest.raises(InvalidConfigError) as caught:
            load_text(*channels, environ=environ)
        assert CANARY not in str(caught.value)
        assert CANARY not in repr(caught.value)
        [told] = caught.value.problems
        return told

    return run


def only(loaded: Loaded) -> Notification:
    [channel] = loaded.settings.notifications
    return channel


def test_nobody_is_told_by_default(load_text: Load) -> None:
    """Without a table there is no channel."""
    assert load_text().settings.notifications == ()


def test_a_channel_is_told_of_everything_unless_it_says_otherwise(load_text: Load) -> None:
    """`on` chooses; without it every happening is told."""
    assert all(only(load_text(HOOK)).wants(kind) for kind in Kind)
    chosen = only(load_text(HOOK + 'on = ["failed", "at_risk"]\n'))
    assert [kind for kind in Kind if chosen.wants(kind)] == [Kind.AT_RISK, Kind.FAILED]


def test_secrets_from_the_file_a_file_and_the_environment(load_text: Load, tmp_path: Path) -> None:
    """A URL and a password may be kept in any of three places."""
    secret = tmp_path / "secret"
    secret.write_text(URL + "\n")
    environ = {"HOOK": URL}
    for text in (HOOK, f'kind = "slack"\nurl_file = "{secret}"\n', 'kind="teams"\nurl_env="HOOK"'):
        assert only(load_text(text, environ=environ)).secret_url(environ) == URL
    mail = only(load_text(MAIL + f'username = "u"\npassword_file = "{secret}"\n'))
    assert mail.secret_password({}) == URL
    assert only(load_text(MAIL)).secret_password({}) == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HOOK + "colour = 1\n", "notifications[0].colour: is not a setting"),
        (HOOK + 'templte = ""\n', "did you mean template?"),
        ('kind = "pager"\n', "must be 'webhook', 'slack', 'teams' or 'email', is 'pager'"),
        ('url = "https://h/x"\n', "notifications[0].kind: is required"),
        (HOOK + 'on = ["drainde"]\n', "drainde, which never happens; did you mean drained?"),
        (HOOK + 'on = ["zzz"]\n', "zzz, which never happens; known: received, drained, held,"),
        (HOOK + f'on = ["{URL}"]\n', "names a URL, which never happens"),
        (HOOK + 'on = "failed"\n', "on: must be an array, is 'failed'"),
        (HOOK + 'template = "{vn}"\n', "names the field {vn}, which does not exist; known: text,"),
        (HOOK + 'template = "{}"\n', "names the field {}, which does not exist"),
        (HOOK + 'template = "{vm.__class__}"\n', "{vm.__class__}, which does not exist"),
        (HOOK + 'template = "{vm!r}"\n', "without a conversion or format"),
        (HOOK + 'template = "{vm"\n', "is not a template"),
        ('kind = "slack"\n', "needs url, or url_file or url_env"),
        (f'kind = "slack"\nurl = "http://h/{CANARY}"\n', "must start with https://"),
        (f'kind = "slack"\nurl = "https://u:{CANARY}@h/"\n', "no user name, password"),
        (f'kind = "slack"\nurl = "{CANARY}"\n', "is not a URL with a scheme"),
        (f'kind = "slack"\nurl = ["{CANARY}"]\n', 'url: must be text in "quotes", is a secret'),
        (MAIL + "password = 123454321\n", 'password: must be text in "quotes", is a secret'),
        (HOOK + 'url_env = "X"\n', "has url and url_env; keep one of them"),
        ('kind = "slack"\nurl_file = "x"\n', "must be an absolute path"),
        (HOOK + 'host = "h"\n', 'has host, which kind = "webhook" does not use'),
        (MAIL + f'url = "{URL}"\n', 'has url, which kind = "email" does not use'),
        (MAIL.replace("sender", "# sender"), "has no sender, which mail needs"),
        (MAIL.replace("to =", "# to ="), "has no to, which mail needs"),
        (MAIL.replace("mail.example.com", "-"), "host: is not a host name"),
        (MAIL + "port = 0\n", "port: must be at least 1, is 0"),
        (MAIL + f'password = "{CANARY}"\n', "needs both username and password"),
        (MAIL + 'username = "u"\n', "needs both username and password"),
        (
            MAIL + f'username = "u"\npassword = "{CANARY}"\nencryption = "none"\n',
            "would send the password readable",
        ),
        (MAIL.replace("oncall@", "on call@"), "must be plain mail addresses"),
        (MAIL.replace("lb-drain@example.com", "a@b\\nBcc: c@d"), "must be plain mail addresses"),
    ],
)
def test_what_is_refused(problem: Callable[..., str], text: str, told: str) -> None:
    """Every mistake is told with its place and never with a secret."""
    assert told in problem(text)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ('url_env = "X"', "has url_env, and that variable is not set"),
        ('url_env = "HTTP"', "has a url that must start with https://"),
        ('url_file = "/does/not/exist"', "that this user can read"),
        ('url_file = "/dev/null"', "is empty or too long"),
        ('url_file = "/dev/zero"', "is empty or too long"),
    ],
)
def test_a_secret_that_cannot_be_had(load_text: Load, where: str, told: str) -> None:
    """What is kept elsewhere is looked for when the agent starts, and the reason told then."""
    channel = only(load_text(f'kind = "slack"\n{where}\n'))
    with pytest.raises(ValueError, match=told) as caught:
        channel.secret_url({"HTTP": f"http://hooks.example.com/{CANARY}"})
    assert CANARY not in str(caught.value)


def test_a_place_is_a_line_of_the_file(problem: Callable[..., str]) -> None:
    """The table that is wrong is found by its line."""
    assert "config.toml:9: notifications[1]: needs url" in problem(HOOK, 'kind = "teams"\n')


def test_no_secret_is_shown(load_text: Load) -> None:
    """Neither the effective configuration nor a dump of the settings shows a secret."""
    loaded = load_text(HOOK, MAIL + f'username = "u"\npassword = "{CANARY}"\n')
    shown = {key: (value, origin) for key, value, origin in describe(loaded)}
    assert shown["notifications[0].url"] == ("**********", "file")
    assert shown["notifications[1].password"] == ("**********", "file")
    assert shown["notifications[1].to[0]"] == ("oncall@example.com", "file")
    settings = loaded.settings
    for text in (
        str(shown),
        repr(settings),
        str(settings.model_dump()),
        settings.model_dump_json(),
    ):
        assert CANARY not in text


def test_this_host_may_be_told_without_tls(load_text: Load) -> None:
    """A receiver or a mail server on this host needs no TLS."""
    loaded = load_text(
        'kind = "webhook"\nurl = "http://127.0.0.1:9/x"\n',
        MAIL.replace("mail.example.com", "localhost")
        + 'username = "u"\npassword = "p"\nencryption = "none"\n',
    )
    assert [each.kind for each in loaded.settings.notifications] == ["webhook", "email"]


def being_told() -> str:
    """Return the chapter of the runbook."""
    runbook = Path(__file__).parents[2] / "deploy" / "README.md"
    return runbook.read_text().split("## Being told")[1].split("\n## ")[0]


def test_the_runbook_shows_what_loads(load_text: Load) -> None:
    """The example of the runbook is a configuration."""
    example = being_told().split("```toml\n")[1].split("```")[0]
    channels = example.split("[[notifications]]\n")[1:]
    loaded = load_text(*channels)
    assert [each.kind for each in loaded.settings.notifications] == ["slack", "email"]


def test_the_runbook_knows_every_happening_and_field() -> None:
    """Its table has every happening that can be chosen, and no other; it names every field."""
    table = [line.split(" | ")[0] for line in being_told().splitlines() if line.startswith("| `")]
    named = [name for cell in table[1:] for name in cell.split("`")[1::2]]
    assert sorted(named) == sorted(kind.value for kind in Kind)
    assert all(f"`{field}`" in being_told() for field in TEMPLATE_FIELDS)
