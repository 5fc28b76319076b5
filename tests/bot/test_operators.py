"""Tokens and sessions: whom they open the door to, until when, and what an attacker learns by trying."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from bot.incidents import NotFoundError, WatchkeeperError
from bot.operators import NotSignedInError, Operators, TooManyAttemptsError, hash_of
from bot.redact import safe_text
from bot.store.audit import AuditLog
from bot.store.operators import OperatorTokens
from bot.store.tables import operator_token
from bot.throttle import MOST_FAILURES, Throttle
from tests.kit import NOW, Store

HERE = "198.51.100.7"


class Clock:
    """Monotonic seconds that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def operators(store: Store, clock: Clock) -> Operators:
    return Operators(tokens=OperatorTokens(store.database), people=store.people, throttle=Throttle(clock))


async def issue(operators: Operators, person_id: str = "bob", **more: Any) -> str:
    secret, _ = await operators.issue(person_id, label="laptop", actor="unix:root", **{"days": 30, "now": NOW, **more})
    return secret


async def test_a_token_says_who_somebody_is(operators: Operators) -> None:
    """Its bearer is the person of the configuration, on the operators' channel."""
    found = await operators.recognise("token", await issue(operators), address=HERE, now=NOW)

    assert (found.person.person_id, found.person.channel) == ("bob", "operator")


async def test_a_token_is_stored_as_a_hash_alone(operators: Operators, store: Store) -> None:
    """Whoever reads the database, or a backup of it, cannot sign in."""
    secret = await issue(operators)
    async with store.database.read() as connection:
        [row] = (await connection.execute(sa.select(operator_token))).all()
    rows = await AuditLog(store.database).newest(subject="", actor="", before=None, limit=10)

    assert secret not in safe_text(f"my token {secret} does not work")
    assert secret not in str(row)
    assert row.token_hash == hash_of(secret)
    assert secret not in str(rows)


@pytest.mark.parametrize(
    "forged",
    [
        "",
        "wko_",
        "wko_" + "A" * 43,
        "wks_" + "A" * 43,
        "wko_" + "A" * 4000,
        "wko_' OR 1=1 --",
        "\ud800",
        "wko_\x00" * 9,
    ],
    ids=range(8),
)
async def test_what_was_never_given_out_opens_nothing(operators: Operators, forged: str) -> None:
    """Neither odd characters nor SQL nor length change that."""
    with pytest.raises(NotSignedInError):
        await operators.recognise("token", forged, address=HERE, now=NOW)


async def test_a_token_expires(operators: Operators) -> None:
    """After its last day it is worth nothing."""
    secret = await issue(operators, days=2)
    await operators.recognise("token", secret, address=HERE, now=NOW + timedelta(hours=47))

    with pytest.raises(NotSignedInError):
        await operators.recognise("token", secret, address=HERE, now=NOW + timedelta(hours=48))


async def test_revoking_ends_a_token_and_its_sessions(operators: Operators) -> None:
    """A stolen laptop: one command, and its browser is out, too; another token of the same person still counts."""
    stolen, kept = await issue(operators), await issue(operators)
    session, _ = await operators.sign_in(stolen, previous="", address=HERE, now=NOW)

    revoked = await operators.revoke(hash_of(stolen)[:12], actor="unix:root", now=NOW)

    assert revoked.person_id == "bob"
    for kind, secret in (("token", stolen), ("session", session)):
        with pytest.raises(NotSignedInError):
            await operators.recognise(kind, secret, address=HERE, now=NOW)  # type: ignore[arg-type]  # a loop's str
    assert (await operators.recognise("token", kept, address=HERE, now=NOW)).person.person_id == "bob"


@pytest.mark.parametrize("token_id", ["", "%", "____________", "0" * 12])
async def test_only_one_known_token_is_revoked(operators: Operators, token_id: str) -> None:
    """A slip of the pen revokes nothing, least of all everything."""
    secret = await issue(operators)

    with pytest.raises(NotFoundError):
        await operators.revoke(token_id, actor="unix:root", now=NOW)
    assert await operators.recognise("token", secret, address=HERE, now=NOW)


async def test_whoever_left_the_configuration_is_nobody(operators: Operators, store: Store) -> None:
    """The token is still good; its bearer is not there any more."""
    secret = await issue(operators)
    await store.people.replace([])

    with pytest.raises(NotSignedInError):
        await operators.recognise("token", secret, address=HERE, now=NOW)


async def test_a_session_is_no_token_and_a_token_no_session(operators: Operators) -> None:
    """A cookie that leaks does not work on the command line's addresses, nor the other way round."""
    token = await issue(operators)
    session, _ = await operators.sign_in(token, previous="", address=HERE, now=NOW)

    with pytest.raises(NotSignedInError):
        await operators.recognise("token", session, address=HERE, now=NOW)
    with pytest.raises(NotSignedInError):
        await operators.recognise("session", token, address=HERE, now=NOW)


async def test_a_session_lives_eight_hours_and_no_longer_than_its_token(operators: Operators) -> None:
    """Signing in does not stretch what was given out."""
    _, usual = await operators.sign_in(await issue(operators), previous="", address=HERE, now=NOW)
    late = NOW + timedelta(hours=20)
    _, short = await operators.sign_in(await issue(operators, days=1), previous="", address=HERE, now=late)

    assert usual.expires_at == NOW + timedelta(hours=8)
    assert short.expires_at == NOW + timedelta(days=1)


async def test_signing_in_again_ends_the_session_before(operators: Operators) -> None:
    """A session that somebody planted in the browser is worth nothing afterwards."""
    token = await issue(operators)
    first, _ = await operators.sign_in(token, previous="", address=HERE, now=NOW)
    second, _ = await operators.sign_in(token, previous=first, address=HERE, now=NOW)

    with pytest.raises(NotSignedInError):
        await operators.recognise("session", first, address=HERE, now=NOW)
    assert await operators.recognise("session", second, address=HERE, now=NOW)


async def test_guessing_is_slowed_down(operators: Operators, clock: Clock) -> None:
    """Ten failures a minute for an address; then wrong ones wait, and after the minute they are heard again."""
    for number in range(MOST_FAILURES):
        with pytest.raises(NotSignedInError):
            await operators.recognise("token", f"wko_{number:043}", address=HERE, now=NOW)

    with pytest.raises(TooManyAttemptsError) as refusal:
        await operators.recognise("token", f"wko_{99:043}", address=HERE, now=NOW)
    assert 0 < refusal.value.wait_s <= 60
    clock.now += 61
    with pytest.raises(NotSignedInError):
        await operators.recognise("token", f"wko_{99:043}", address=HERE, now=NOW)


async def test_a_stranger_locks_nobody_out(operators: Operators) -> None:
    """Somebody guesses from the address of our proxy: a right secret counts all the same, also a new one."""
    for number in range(50):
        with pytest.raises((NotSignedInError, TooManyAttemptsError)):
            await operators.recognise("token", f"wko_{number:043}", address=HERE, now=NOW)

    assert await operators.recognise("token", await issue(operators), address=HERE, now=NOW)


async def test_an_expired_token_in_a_script_is_slowed_down_from_everywhere(operators: Operators) -> None:
    """The secret itself is counted, too, not only the address."""
    secret = await issue(operators, days=1)
    late = NOW + timedelta(days=2)
    for number in range(MOST_FAILURES):
        with pytest.raises(NotSignedInError):
            await operators.recognise("token", secret, address=f"198.51.100.{number}", now=late)

    with pytest.raises(TooManyAttemptsError):
        await operators.recognise("token", secret, address="203.0.113.1", now=late)


def test_nobody_fills_the_memory_of_failures(clock: Clock) -> None:
    """A million addresses leave no more than a few thousand traces."""
    throttle = Throttle(clock)
    for number in range(10_000):
        throttle.failed(f"address {number}")

    assert len(throttle._failures) == 4096


@pytest.mark.parametrize("days", [0, -1, 367])
async def test_a_token_lives_a_day_to_a_year(operators: Operators, days: int) -> None:
    """No token for ever, and none that never counted."""
    with pytest.raises(WatchkeeperError, match="--days"):
        await issue(operators, days=days)


async def test_everything_is_on_record(operators: Operators, store: Store) -> None:
    """Who gave a token to whom, who signed in and out, who revoked it; and the chain holds."""
    secret = await issue(operators)
    session, _ = await operators.sign_in(secret, previous="", address=HERE, now=NOW)
    await operators.sign_out(session, now=NOW)
    await operators.revoke(hash_of(secret)[:12], actor="unix:eve", now=NOW)

    record = AuditLog(store.database)
    said = [(row.actor, row.action) for row in await record.about("operator:bob")]
    assert said == [
        ("unix:root", "operator.added"),
        ("bob", "operator.signed_in"),
        ("bob", "operator.signed_out"),
        ("unix:eve", "operator.revoked"),
    ]
    assert (await record.verify()).broken_at is None
