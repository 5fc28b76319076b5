"""Modes, freezes and limits in watchkeeper.toml: what cannot be is refused when the file is read."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from bot.config import ConfigError, Freeze
from tests.kit import CONFIG, config_in

AUTO = CONFIG.replace('mode = "approve"', 'mode = "auto"\nauto = ["langfuse.move_label"]')
LIMIT = '[[limit]]\naction = "langfuse.move_label"\nper_hour = 2\n'
FREEZE = '[[freeze]]\nname = "rest"\ntimezone = "UTC"\nstart = "Fri 17:00"\nend = "Mon 08:00"\nreason = "quiet"\n'
R3 = '[[policy]]\ntier = "R3"\nenvironment = "prod"\nservice = "*"\nroles = ["platform"]\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (AUTO, "nothing limits how often langfuse.move_label runs by itself for chat"),
        (AUTO + LIMIT.replace("per_hour", "per_target_per_hour"), "add a [[limit]] with per_hour"),
        (AUTO + LIMIT.replace("action", 'environment = "dev"\naction'), "nothing limits"),
        (AUTO.replace("langfuse.move_label", "kubernetes.drain") + LIMIT, "only R0 and R1 may run without a person"),
        (AUTO.replace("langfuse.move_label", "command.run") + LIMIT, "is or may be R3"),
        (AUTO.replace("langfuse.move_label", "langfuse.move_labl") + LIMIT, "did you mean langfuse.move_label?"),
        (AUTO.replace('auto = ["langfuse.move_label"]', "") + LIMIT, "no action is named"),
        (CONFIG + LIMIT.replace("move_label", "move"), "there is no action 'langfuse.move'"),
        (CONFIG + "[[limit]]\n", "this limits nothing"),
        (CONFIG + '[[limit]]\nservice = "chta"\nper_hour = 1\n', "did you mean chat?"),
        (CONFIG + FREEZE.replace("reason", 'services = ["chta"]\nreason'), "did you mean chat?"),
        (CONFIG + FREEZE.replace('timezone = "UTC"', 'timezone = "Mars/Base"'), "there is no time zone"),
        (CONFIG + FREEZE.replace('timezone = "UTC"\n', ""), "needs its clock"),
        (CONFIG + FREEZE.replace("Mon 08:00", "Fri 17:00"), "it ends when it starts"),
        (CONFIG + FREEZE.replace("Mon 08:00", "2026-12-24T00:00:00Z"), "do not fit"),
        (CONFIG + FREEZE.replace("Fri 17:00", "friday"), "is no time"),
        (CONFIG + R3, "service chat has no team"),
        (CONFIG + R3 + "count = 1\n", "one person can never approve an R3 action"),
        (CONFIG.replace('id = "paul"', 'id = "policy"'), "take another id"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """Each with what to do about it."""
    with pytest.raises(ConfigError) as refusal:
        config_in(tmp_path, text)

    assert words in str(refusal.value)


@pytest.mark.parametrize("change", [FREEZE, LIMIT, FREEZE.replace("quiet", "loud")])
def test_the_policy_version_moves_with_freezes_and_limits(tmp_path: Path, change: str) -> None:
    """An approval rests on them, too; and on teams, modes and what runs by itself."""
    plain = config_in(tmp_path, CONFIG).policy_version
    texts = [
        CONFIG + change,
        CONFIG.replace('owners = ["dana"]', 'owners = ["dana"]\nteam = "chat"'),
        CONFIG.replace('mode = "approve"', 'mode = "suggest"'),
        CONFIG.replace('mode = "approve"', 'mode = "approve"\nauto = ["langfuse.move_label"]') + LIMIT,
        CONFIG.replace('roles = ["platform"]', 'roles = ["platform"]\nteam = "infra"'),
        CONFIG.replace("count = 2", "count = 2\nother_team = false\nstart_within_min = 9"),
    ]

    assert len({plain, *(config_in(tmp_path, text).policy_version for text in texts)}) == len(texts) + 1


@pytest.mark.parametrize(
    ("start", "end", "at", "until"),
    [
        ("Fri 17:00", "Mon 08:00", "2026-11-20T15:59:59+00:00", None),
        ("Fri 17:00", "Mon 08:00", "2026-11-20T16:00:00+00:00", "2026-11-23T07:00:00+00:00"),
        ("Fri 17:00", "Mon 08:00", "2026-11-23T06:59:59+00:00", "2026-11-23T07:00:00+00:00"),
        ("Fri 17:00", "Mon 08:00", "2026-11-23T07:00:00+00:00", None),
        (
            "Fri 17:00",
            "Mon 08:00",
            "2026-03-29T12:00:00+00:00",
            "2026-03-30T06:00:00+00:00",
        ),  # summer time since 3 a.m.
        (
            "Sun 01:00",
            "Sun 02:30",
            "2026-10-25T00:45:00+00:00",
            "2026-10-25T01:30:00+00:00",
        ),  # 02:45, for the first time
        ("Sun 02:30", "Sun 04:00", "2026-03-29T00:30:00+00:00", "2026-03-29T02:00:00+00:00"),  # there is no 02:30
    ],
)
def test_a_weekly_freeze_goes_by_local_clocks(start: str, end: str, at: str, until: str | None) -> None:
    """Also on the days on which clocks are changed, where it is longer rather than shorter."""
    window = Freeze(name="rest", timezone="Europe/Berlin", start=start, end=end, reason="quiet")

    found = window.until(datetime.fromisoformat(at))

    assert (found.isoformat() if found else None) == until
