"""`[[notifications]]`: what loads, what is refused, and that no secret is ever shown."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.config.loader import InvalidConfigError, LoadedSettings, describe, load
from controller.config.notifications import TEMPLATE_FIELDS, Notification
from controller.core.notices.digest import Schedule
from controller.core.notices.notice import Notice, NoticeKind

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
Load = Callable[..., LoadedSettings]


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    def run(*channels: str, environ: Mapping[str, str] | None = None) -> LoadedSettings:
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
        [line] = caught.value.problems
        return line

    return run


def only(loaded: LoadedSettings) -> Notification:
    [channel] = loaded.settings.notifications
    return channel


def test_there_is_no_channel_by_default(load_text: Load) -> None:
    """Without a table there is no channel."""
    assert load_text().settings.notifications == ()


def test_a_channel_gets_all_kinds_by_default(load_text: Load) -> None:
    """`on` selects kinds; without it a channel gets every notification."""
    every = only(load_text(HOOK))
    assert [kind for kind in NoticeKind if not every.wants(notice(kind))] == [NoticeKind.DIGEST]
    chosen = only(load_text(HOOK + 'on = ["failed", "at_risk"]\n'))
    assert [kind for kind in NoticeKind if chosen.wants(notice(kind))] == [
        NoticeKind.AT_RISK,
        NoticeKind.FAILED,
    ]


def notice(kind: NoticeKind, schedule: str = "") -> Notice:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    return Notice(kind=kind, id="i", at=at, text="t", schedule=schedule)


@pytest.mark.parametrize(
    ("keys", "schedule"),
    [
        ("", None),
        ('digest = "daily"\n', Schedule(hour=8)),
        ('digest = "weekly"\n', Schedule(hour=8, weekday=0)),
        (
            'digest = "weekly"\ndigest_weekday = "sunday"\ndigest_hour = 23\n',
            Schedule(hour=23, weekday=6),
        ),
    ],
)
def test_a_channel_gets_the_digest_of_its_schedule(
    keys: str, schedule: Schedule | None, load_text: Load
) -> None:
    """Digests are off by default, and independent of the kinds that `on` selects."""
    channel = only(load_text(HOOK + 'on = ["failed"]\n' + keys))
    assert channel.schedule == schedule
    for each in (Schedule(hour=8), Schedule(hour=8, weekday=0), Schedule(hour=23, weekday=6)):
        digest = notice(NoticeKind.DIGEST, schedule=each.name)
        assert channel.wants(digest) == (each == schedule)


def test_secrets_from_the_file_a_file_and_the_environment(load_text: Load, tmp_path: Path) -> None:
    """A URL and a password can be in the key, in a file or in a variable."""
    secret = tmp_path / "secret"
    secret.write_text(URL + "\n")
    environ = {"HOOK": URL}
    for text in (HOOK, f'kind = "slack"\nurl_file = "{secret}"\n', 'kind="teams"\nurl_env="HOOK"'):
        assert only(load_text(text, environ=environ)).secret_url(environ) == URL
    mail = only(load_text(MAIL + f'username = "u"\npassword_file = "{secret}"\n'))
    assert mail.secret_password({}) == URL
    assert only(load_text(MAIL)).secret_password({}) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HOOK + "colour = 1\n", "notifications[0].colour: is not a setting"),
        (HOOK + 'templte = ""\n', "did you mean template?"),
        ('kind = "pager"\n', "must be 'webhook', 'slack', 'teams' or 'email', is 'pager'"),
        ('url = "https://h/x"\n', "notifications[0].kind: is required"),
        (
            HOOK + 'on = ["drainde"]\n',
            "drainde, which is not a kind of notification; did you mean drained?",
        ),
        (
            HOOK + 'on = ["zzz"]\n',
            "zzz, which is not a kind of notification; known: received, drained, held,",
        ),
        (HOOK + f'on = ["{URL}"]\n', "contains a URL, which is not a kind"),
        (HOOK + 'on = "failed"\n', "on: must be an array, is 'failed'"),
        (HOOK + 'template = "{vn}"\n', "uses the field {vn}, which does not exist; known: text,"),
        (HOOK + 'template = "{}"\n', "uses the field {}, which does not exist"),
        (HOOK + 'template = "{vm.__class__}"\n', "{vm.__class__}, which does not exist"),
        (HOOK + 'template = "{vm!r}"\n', "without a conversion or format"),
        (HOOK + 'template = "{vm"\n', "is not a template"),
        ('kind = "slack"\n', "needs url, or url_file or url_env"),
        (f'kind = "slack"\nurl = "http://h/{CANARY}"\n', "must start with https://"),
        (f'kind = "slack"\nurl = "https://u:{CANARY}@h/"\n', "no user name, password"),
        (f'kind = "slack"\nurl = "{CANARY}"\n', "is not a URL with a scheme"),
        (f'kind = "slack"\nurl = ["{CANARY}"]\n', 'url: must be text in "quotes", is a secret'),
        (MAIL + "password = 123454321\n", 'password: must be text in "quotes", is a secret'),
        (HOOK + 'url_env = "X"\n', "has url and url_env; keep only one"),
        ('kind = "slack"\nurl_file = "x"\n', "must be an absolute path"),
        (HOOK + 'host = "h"\n', 'has host, which kind = "webhook" does not use'),
        (MAIL + f'url = "{URL}"\n', 'has url, which kind = "email" does not use'),
        (MAIL.replace("sender", "# sender"), "has no sender, which kind"),
        (MAIL.replace("to =", "# to ="), "has no to, which kind"),
        *(
            (MAIL.replace("mail.example.com", host), "host: is not a host name")
            for host in ("-", "a-.example.com", "[::1]", "10.0.0.300", "a..b")
        ),
        *(
            (MAIL.replace("mail.example.com", host), "a port belongs in the key port")
            for host in ("mail.example.com:25", "10.0.0.4:587", "[::1]:25", "mail:smtp")
        ),
        (MAIL + "port = 0\n", "port: must be at least 1, is 0"),
        (MAIL + f'password = "{CANARY}"\n', "needs both username and password"),
        (MAIL + 'username = "u"\n', "needs both username and password"),
        (
            MAIL + f'username = "u"\npassword = "{CANARY}"\nencryption = "none"\n',
            "would send the password in clear text",
        ),
        (MAIL.replace("oncall@", "on call@"), "must be plain mail addresses"),
        (MAIL.replace("lb-drain@example.com", "a@b\\nBcc: c@d"), "must be plain mail addresses"),
    ],
)
def test_what_is_refused(problem: Callable[..., str], text: str, expected: str) -> None:
    """Every mistake is reported with its place and without a secret."""
    assert expected in problem(text)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ('url_env = "X"', "has url_env, but that variable is not set"),
        ('url_env = "HTTP"', "has a url that must start with https://"),
        ('url_file = "/does/not/exist"', "that this user can read"),
        ('url_file = "/dev/null"', "is empty or too long"),
        ('url_file = "/dev/zero"', "is empty or too long"),
    ],
)
def test_a_secret_that_cannot_be_read(load_text: Load, where: str, expected: str) -> None:
    """A secret in a file or variable is read when the agent starts; the error names the key."""
    channel = only(load_text(f'kind = "slack"\n{where}\n'))
    with pytest.raises(ValueError, match=expected) as caught:
        channel.secret_url({"HTTP": f"http://hooks.example.com/{CANARY}"})
    assert CANARY not in str(caught.value)


def test_a_place_is_a_line_of_the_file(problem: Callable[..., str]) -> None:
    """A problem of a table names the line of the table."""
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


def test_receivers_on_this_host_need_no_tls(load_text: Load) -> None:
    """A receiver or a mail server on this host needs no TLS."""
    loaded = load_text(
        'kind = "webhook"\nurl = "http://127.0.0.1:9/x"\n',
        MAIL.replace("mail.example.com", "localhost")
        + 'username = "u"\npassword = "p"\nencryption = "none"\n',
    )
    assert [each.kind for each in loaded.settings.notifications] == ["webhook", "email"]


def notifications_chapter() -> str:
    """Return the chapter of the runbook."""
    runbook = Path(__file__).parents[3] / "deploy" / "README.md"
    return runbook.read_text().split("## Notifications")[1].split("\n## ")[0]


def test_the_runbook_shows_what_loads(load_text: Load) -> None:
    """The example of the runbook is a configuration."""
    example = notifications_chapter().split("```toml\n")[1].split("```")[0]
    channels = example.split("[[notifications]]\n")[1:]
    loaded = load_text(*channels)
    assert [each.kind for each in loaded.settings.notifications] == ["slack", "email"]


def test_the_runbook_lists_every_kind_and_field() -> None:
    """Its table has every kind of notification and no other; it names every template field."""
    table = [
        line.split(" | ")[0]
        for line in notifications_chapter().splitlines()
        if line.startswith("| `")
    ]
    named = [name for cell in table[1:] for name in cell.split("`")[1::2]]
    assert sorted(named) == sorted(kind.value for kind in NoticeKind)
    assert all(f"`{field}`" in notifications_chapter() for field in TEMPLATE_FIELDS)


@pytest.mark.parametrize("host", ["::1", "fe80::1", "10.0.0.4", "mail", "mail_1.example.com"])
def test_a_mail_server_is_a_name_or_an_address(load_text: Load, host: str) -> None:
    """An address of version 6 as it is, without brackets."""
    assert only(load_text(MAIL.replace("mail.example.com", host))).host == host
