"""Of a changed prompt the card and the record get what its service allows, and of any changed text no credential."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from bot.config import Config
from bot.connections import connect
from bot.discretion import DiscreetDiagnoser, PromptDiff, discreet, masked
from bot.redact import REDACTED
from bot.respond import diagnosis_of
from bot.settings import Settings
from bot.store import tables
from diagnostics.answer import RecordedChanges
from diagnostics.changes.change import Change
from diagnostics.changes.ranking import diff_of
from diagnostics.diagnosis import Diagnosis, Scope, Suspect
from diagnostics.target import Target
from tests import synthetic
from tests.bot.test_keeper import Desk
from tests.bot.test_respond import Scene
from tests.diagnosed import recorded
from tests.diagnostics_prompts import DECOY, GUILTY
from tests.kit import CONFIG, INCIDENT, Store, config_in
from tests.made_up_secrets import KINDS
from tests.stories import FOUND, texts

STORE = "https://langfuse.example.com"
TOKEN_TEXT, TOKEN = KINDS["anthropic key"](random.Random(5))
PRIVATE_WORDS = "never mention the merger with Initech"
BEFORE = f"system: You sell shoes.\n- {PRIVATE_WORDS}\nuser: {{{{question}}}}"
CHANGED = replace(
    GUILTY,
    before=BEFORE,
    after=f"system: It is {{{{timestamp}}}}, key {TOKEN_TEXT}\n{BEFORE}, or the layoffs",
    summary=f"{GUILTY.summary} (about the merger)",
)


def suspect(change: Change) -> Suspect:
    return Suspect(
        change=change,
        score=0.9,
        reasons=("the prompt now has a variable part near its start: {{timestamp}}",),
        diff=diff_of(change),
    )


def shown(mode: PromptDiff, change: Change = CHANGED) -> Suspect:
    found = discreet(replace(FOUND, suspects=(suspect(change),)), mode, {"prompts": STORE})
    return found.suspects[0]


def test_full_shows_the_words_and_never_a_credential() -> None:
    """What the team reads in its prompt store anyway."""
    diff = shown("full").diff

    assert f"+system: It is {{{{timestamp}}}}, key {REDACTED}" in diff
    assert PRIVATE_WORDS in diff
    assert TOKEN not in diff


def test_redacted_shows_which_lines_and_that_it_begins_with_a_variable() -> None:
    """Enough to understand a broken prefix cache; not one word of the prompt."""
    seen = shown("redacted")

    assert seen.diff.split("\n") == [
        "--- chat-system version 7",
        "+++ chat-system version 8",
        "@@ -1,3 +1,4 @@",
        "+system: ▒x2 {{timestamp}}, ▒ [▒]",
        " system: ▒x3.",
        " - ▒x6",
        "-user: {{question}}",
        "+user: {{question}}, ▒x3",
    ]
    assert seen.reasons == ("the prompt now has a variable part near its start: {{timestamp}}",)
    assert seen.change.url == STORE


def test_link_shows_who_and_which_version_and_where() -> None:
    """No text at all: neither the diff nor the author's note nor the variable."""
    seen = shown("link")

    assert seen.diff == ""
    assert seen.change.summary == "prompt chat-system is on version 8, before that on version 7"
    assert seen.change.author == "bob"
    assert seen.change.url == STORE
    assert seen.reasons == ("the prompt now has a variable part near its start",)


def test_a_commit_is_named_without_its_subject() -> None:
    """A prompt that lives in Git has no versions; what its author wrote may quote it."""
    change = replace(CHANGED, undo={"commit": "a" * 40, "path": "p.txt"}, source="folder")

    assert shown("link", change).change.summary == "prompt chat-system changed in commit aaaaaaaaaaaa"


@pytest.mark.parametrize("mode", ["full", "redacted", "link"])
def test_whole_texts_are_never_passed_on(mode: PromptDiff) -> None:
    """Whatever the mode: the diff is all that anybody needs later."""
    seen = shown(mode)

    assert (seen.change.before, seen.change.after) == (None, None)
    assert seen.change.undo == CHANGED.undo


def test_other_changes_keep_their_words() -> None:
    """A deployment's diff is no prompt; credentials are hidden, and one that only changed a credential says so."""
    change = replace(CHANGED, kind="config", before="replicas: 3", after=f"replicas: 2\ntoken: {TOKEN_TEXT}")
    rotated = replace(change, before=f"x: {TOKEN_TEXT}", after="x: " + KINDS["anthropic key"](random.Random(6))[0])

    assert f"+token: {REDACTED}" in shown("link", change).diff
    assert shown("link", rotated).diff == "only credentials or invisible characters differ"


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("It is 2026-11-22 09:00:11 now.", "▒x2 [a date] ▒."),
        ('{"answer": "{{x}}", "why": "because"}', '{"▒": "{{x}}", "▒": "▒"}'),
        ("{{ the password is swordfish }}", "{{ ▒x4 }}"),
        ("{{ user.name | upper }} ${HOME} <%= id %> {tone}", "{{ user.name | upper }} ${HOME} <%= id %> {tone}"),
        ("## Rules für 你好", "## ▒x3"),
        ("don't", "▒'▒"),
        ("", ""),
    ],
)
def test_a_masked_line_keeps_structure_and_no_word(line: str, seen: str) -> None:
    """Variables only where brackets hold nothing but a name; words of every script are masked."""
    assert masked(line) == seen


def test_a_key_that_an_exporter_wrote_into_a_label_is_not_kept() -> None:
    """The scope is what a label says; a name that is none fits no step, and what is one stays."""
    found = replace(FOUND, scope=Scope(dimension="api_key", values=("nightly-batch", TOKEN_TEXT)))
    kept = discreet(found, "full").scope

    assert kept is not None
    assert kept.values[0] == "nightly-batch"
    assert TOKEN not in kept.values[1]


def test_identities_stay_as_they_are() -> None:
    """Steps are filled from them, however much one looks like a credential."""
    change = replace(CHANGED, id=TOKEN_TEXT, undo={"version": "8", "prompt": TOKEN_TEXT})

    assert shown("full", change).change.id == TOKEN_TEXT
    assert shown("full", change).change.undo["prompt"] == TOKEN_TEXT


class SyntheticLook(DiscreetDiagnoser):
    """Looks at the recorded service whatever it is asked about."""

    async def diagnose(self, target: Target, *, at: datetime | None = None, alert: str = "") -> Diagnosis:
        return await super().diagnose(synthetic.target(), at=at, alert=alert)


@pytest.mark.integration
@pytest.mark.parametrize("mode", ["full", "redacted", "link"])
async def test_the_card_and_the_record_hold_what_is_allowed(store: Store, mode: PromptDiff) -> None:
    """From a real diagnosis to the stored row, the card and the thread."""
    await store.page()
    scene = Scene(store)
    look = SyntheticLook(
        recorded("S04"), [RecordedChanges([CHANGED, DECOY])], prompt_diff=mode, stores={"prompts": STORE}
    )
    scene.story._diagnosers = {"chat": look}
    await scene.tell()
    desk = Desk(store)
    await desk.draw()
    await desk.wait()
    await desk.slack_mail.sweep()
    async with store.database.read() as connection:
        row = (await connection.execute(sa.select(tables.run).where(tables.run.c.incident_id == INCIDENT))).one()
    kept = json.dumps(row.diagnosis)
    told = " ".join(texts(message.blocks) for *_, message in desk.slack.posts)
    found = diagnosis_of(await scene.run())

    assert found is not None
    assert found.culprit_change == CHANGED.id
    for place in (kept, told):
        assert TOKEN not in place
        assert ("merger with Initech" in place) == (mode == "full")
        assert ("{{timestamp}}" in place) == (mode != "link")
        assert STORE in place
    assert ("about the merger" in kept) == (mode != "link")


async def test_the_configuration_decides(tmp_path: Path) -> None:
    """Every diagnoser that the application opens is a discreet one, with its service's own mode."""
    config = config_of(tmp_path)
    connections = connect(Settings.load({}), config)
    try:
        look = connections.diagnosers(config)["chat"]
    finally:
        await connections.close()

    assert isinstance(look, DiscreetDiagnoser)
    assert look._prompt_diff == "link"


def config_of(folder: Path) -> Config:
    return config_in(folder, CONFIG.replace('mode = "approve"', 'mode = "approve"\nprompt_diff = "link"'))


def test_the_default_is_redacted(tmp_path: Path) -> None:
    """Whoever says nothing shows nobody's prompts."""
    assert config_in(tmp_path).services[0].prompt_diff == "redacted"
