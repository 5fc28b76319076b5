"""What the environment may say, and how its mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.settings import SECRETS, Settings, SettingsError

COMPLETE = {
    "SLACK_BOT_TOKEN": "xoxb-1",
    "SLACK_SIGNING_SECRET": "sig-1",
    "INCIDENT_CHANNEL": "C1",
    "PAGERDUTY_API_KEY": "key-1",
    "PAGERDUTY_FROM": "bot@example.com",
    "PAGERDUTY_WEBHOOK_SECRETS": "new, old",
}


def problems(environ: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        Settings.load(environ)
    return caught.value.problems


def test_nothing_is_needed_to_look_around() -> None:
    """An empty environment gives the defaults, and says what serving still needs."""
    settings = Settings.load({})

    assert settings.database_url.get_secret_value().startswith("sqlite:///")
    assert (settings.watchkeeper_host, settings.watchkeeper_port) == ("127.0.0.1", 8080)
    assert {line.split()[0] for line in settings.missing_for_serving()} == set(COMPLETE)


def test_a_complete_environment_can_serve() -> None:
    """With all of it set nothing is missing, and the two webhook secrets of a rotation are both live."""
    settings = Settings.load(COMPLETE)

    assert settings.missing_for_serving() == ()
    assert [each.get_secret_value() for each in settings.pagerduty_webhook_secrets] == ["new", "old"]


def test_socket_mode_needs_another_secret() -> None:
    """In Socket Mode Slack signs nothing, and the app-level token takes the signing secret's place."""
    environ = {**COMPLETE, "SOCKET_MODE": "true"}
    del environ["SLACK_SIGNING_SECRET"]

    [missing] = Settings.load(environ).missing_for_serving()

    assert missing.startswith("SLACK_APP_TOKEN")


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    """NAME_FILE holds the value; the newline that editors add is no part of it."""
    file = tmp_path / "signing"
    file.write_text("sig-from-file\n", encoding="utf-8")

    settings = Settings.load({"SLACK_SIGNING_SECRET_FILE": str(file)})

    assert settings.slack_signing_secret is not None
    assert settings.slack_signing_secret.get_secret_value() == "sig-from-file"


def test_two_sources_of_one_value_are_refused(tmp_path: Path) -> None:
    """Both forms at once would make one of them silently lose."""
    [problem] = problems({"PAGERDUTY_API_KEY": "a", "PAGERDUTY_API_KEY_FILE": str(tmp_path / "b")})

    assert problem == "PAGERDUTY_API_KEY and PAGERDUTY_API_KEY_FILE are both set: unset one of them"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The variable and the file are in the message."""
    [problem] = problems({"SLACK_BOT_TOKEN_FILE": str(tmp_path / "none")})

    assert problem.startswith(f"SLACK_BOT_TOKEN_FILE names {tmp_path / 'none'}")


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("value", ["", "   ", "changeme", "Secret"])
def test_worthless_secrets_are_refused(name: str, value: str) -> None:
    """An empty key verifies everybody's signature, and everybody knows `changeme`."""
    [problem] = problems({name: value})

    assert problem.startswith(name)


def test_an_empty_secret_file_is_refused(tmp_path: Path) -> None:
    """A secret that was mounted empty must not become an empty key."""
    file = tmp_path / "signing"
    file.write_text("\n", encoding="utf-8")

    [problem] = problems({"SLACK_SIGNING_SECRET_FILE": str(file)})

    assert problem.startswith("SLACK_SIGNING_SECRET_FILE is empty")


@pytest.mark.parametrize("value", ["one,", ",one", "one,,two", "one, changeme"])
def test_no_secret_of_a_rotation_may_be_worthless(value: str) -> None:
    """A stray comma would let requests through that are signed with the empty key."""
    [problem] = problems({"PAGERDUTY_WEBHOOK_SECRETS": value})

    assert problem.startswith("PAGERDUTY_WEBHOOK_SECRETS")


def test_every_mistake_is_told_at_once() -> None:
    """Four wrong variables give four problems, each with its name."""
    found = problems(
        {
            "PAGERDUTY_API_BASE_URL": "http://pagerduty.example.com",
            "WATCHKEEPER_PORT": "http",
            "SLACK_BOT_TOKEN": "",
            "SSL_CERT_FILE": "/nowhere/ca.pem",
        }
    )

    assert {problem.split()[0] for problem in found} == {
        "PAGERDUTY_API_BASE_URL",
        "WATCHKEEPER_PORT",
        "SLACK_BOT_TOKEN",
        "SSL_CERT_FILE",
    }


@pytest.mark.parametrize(
    ("url", "accepted"),
    [("http://127.0.0.1:8801/api/", True), ("http://slack.example.com/api/", False), ("https://slack.com/api/", True)],
)
def test_the_bot_token_travels_encrypted(url: str, accepted: bool) -> None:  # noqa: FBT001 - a table's column
    """Plain HTTP is for this machine only."""
    if accepted:
        assert Settings.load({"SLACK_API_BASE_URL": url}).slack_api_base_url == url
    else:
        assert "unencrypted" in problems({"SLACK_API_BASE_URL": url})[0]


def test_secrets_are_not_printed() -> None:
    """Neither the settings' text nor an error about a wrong URL shows a secret."""
    shown = repr(Settings.load({**COMPLETE, "DATABASE_URL": "postgresql://bot:hunter2@db/wk"}))
    told = problems({"DATABASE_URL": "mysql://bot:hunter2@db/wk"})[0]

    assert [word for word in ("xoxb-1", "sig-1", "key-1", "hunter2") if word in shown + told] == []


def test_credentials_are_read_by_the_name_that_the_configuration_gives(tmp_path: Path) -> None:
    """A variable, a file, or nothing at all."""
    file = tmp_path / "kube"
    file.write_text("from-file\n", encoding="utf-8")
    settings = Settings.load({"KUBE_READ_TOKEN": "from-variable", "KUBE_ACTION_TOKEN_FILE": str(file)})

    read, act = settings.secret("KUBE_READ_TOKEN"), settings.secret("KUBE_ACTION_TOKEN")

    assert read is not None
    assert read.get_secret_value() == "from-variable"
    assert act is not None
    assert act.get_secret_value() == "from-file"
    assert settings.secret("KUBE_OTHER_TOKEN") is None


def test_the_stock_sources_stay_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what `load` was given counts, never what the process happens to have."""
    monkeypatch.setenv("INCIDENT_CHANNEL", "C-FROM-PROCESS")

    assert Settings.load({}).incident_channel is None
