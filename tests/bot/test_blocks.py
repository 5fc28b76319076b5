"""The card: what it says, which buttons it has in which state, and that nothing from outside comes alive in it."""

from __future__ import annotations

import html
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bot.incidents import PlanState
from bot.slack import answers, thread
from bot.slack.blocks import card, sentence
from bot.slack.buttons import ACTIONS
from bot.slack.escape import code, inline, is_web_address, lines_within, link, plain
from bot.slack.view import BlindLine, CardState, CardView, Message, PlanLine
from lab.slack_blocks import faults_in
from retrieval.documents import Hit
from runbooks.engine.values import Tier
from tests.cards import DIAGNOSED, GRAPH, PROPOSED, VARIANTS, flooded, with_plan

OPEN_INCIDENT = ["acknowledge", "resolve", "rediagnose"]


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """Every object in it, at any depth."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


def buttons_of(message: Message) -> dict[str, dict[str, Any]]:
    return {node["action_id"]: node for node in walk(message.blocks) if "action_id" in node}


def words_of(message: Message) -> str:
    """Everything that a person reads, as they read it."""
    texts = [node["text"] for node in walk(message.blocks) if isinstance(node.get("text"), str)]
    return html.unescape("\n".join(texts)).replace("\u2060", "")


def test_the_card_says_what_since_when_how_sure_and_what_to_do() -> None:
    """The whole story of S04 stands on the card, with numbers and units."""
    words = words_of(card(DIAGNOSED))

    for said in (
        "chat: LLMHighTTFT chat",
        "PagerDuty #42",
        "A prompt change broke the prefix cache* (S04), 91 % sure",
        "Since 13:51 UTC, 12 min before the page.",
        "Who is hurt: 4.1 % of requests fail (normally 0.2 %), 2 of 60 tenants are hit. Hit: acme, globex.",
        "670 ms (normally 430 ms)",
        "3 % (normally 40 %)",
        "+Now: {{timestamp}}",
        "Prefix cache collapse",
        "declares cause S04",
        "Move label production of prompt chat-system from version 8 to version 7.",
        "May approve: prompt owner or service owner.",
        "Risk R1: reversible within five minutes.",
        "The offer ends at 14:18 UTC.",
        "Not checked: token cost",
        "Mallory was refused: approve",
    ):
        assert said in words
    assert "The GPUs are healthy" not in words  # what is fine waits in the thread


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("paged", ["acknowledge", "resolve"]),
        ("not configured", ["acknowledge", "resolve"]),
        ("proposed", ["approve", "deny", "request", *OPEN_INCIDENT]),
        ("nobody may", ["deny", "request", *OPEN_INCIDENT]),
        ("observe", OPEN_INCIDENT),
        ("no plan", OPEN_INCIDENT),
        ("acknowledged", ["approve", "deny", "request", "resolve", "rediagnose"]),
        ("approved", ["revoke", *OPEN_INCIDENT]),
        ("running", OPEN_INCIDENT),
        ("verified", ["undo", "request", *OPEN_INCIDENT]),
        ("not verified", ["undo", "request", *OPEN_INCIDENT]),
        ("not verified, no undo", ["request", *OPEN_INCIDENT]),
        ("in doubt", ["settle_ran", "settle_not_run", "settle_stop", *OPEN_INCIDENT]),
        ("denied", ["request", *OPEN_INCIDENT]),
        ("expired", ["request", *OPEN_INCIDENT]),
        ("stale", ["request", *OPEN_INCIDENT]),
        ("resolved with an open offer", []),
        ("resolved in doubt", ["settle_ran", "settle_not_run", "settle_stop"]),
    ],
)
def test_buttons_by_state(name: str, expected: list[str]) -> None:
    """A card has the buttons of its state and no stale one."""
    assert list(buttons_of(card(VARIANTS[name]))) == expected


def test_buttons_carry_ids_only() -> None:
    """A value is the incident's id, the plan's, or the plan's with the step; never a parameter."""
    for view in VARIANTS.values():
        for action, element in buttons_of(card(view)).items():
            values = [element["value"]] if "value" in element else [o["value"] for o in element["options"]]
            assert set(values) <= {view.incident_id, "p-0", "p-1", "p-2", "p-1:0"}, action
            assert action in ACTIONS


def test_approval_asks_back_with_exactly_what_will_run() -> None:
    """The dialog of the approve button holds the literal effect; a costly fix is marked as dangerous."""
    approve = buttons_of(card(DIAGNOSED))["approve"]
    costly = buttons_of(card(replace(DIAGNOSED, plan=replace(PROPOSED, tier=Tier.R2))))["approve"]

    assert (
        "1. Move label production of prompt chat-system from version 8 to version 7."
        in approve["confirm"]["text"]["text"]
    )
    assert (approve["style"], costly["style"]) == ("primary", "danger")


def test_undo_asks_back_with_what_is_taken_back() -> None:
    """The dialog of the undo button holds the undo, not the fix."""
    undo = buttons_of(card(VARIANTS["not verified"]))["undo"]

    assert "from version 7 to version 8" in undo["confirm"]["text"]["text"]
    assert undo["style"] == "danger"


def earlier(plan_id: str, state: PlanState = PlanState.NOT_VERIFIED, *, number: int = 7, **more: Any) -> PlanLine:
    step = replace(PROPOSED.steps[0], undo=f"Move label production back to version {number}.")
    return replace(PROPOSED, plan_id=plan_id, state=state, title=f"Roll back to {number}", steps=(step,), **more)


def undos_of(view: CardView) -> dict[str, dict[str, Any]]:
    """The undo buttons by the id of their plan."""
    return {
        element["value"]: element
        for block in card(view).blocks
        for element in block.get("elements", [])
        if element.get("action_id") == "undo"
    }


@pytest.mark.parametrize("shown", [PlanState.PROPOSED, PlanState.DENIED, PlanState.RUNNING, PlanState.NOT_VERIFIED])
def test_every_fix_that_can_be_taken_back_has_its_undo(shown: PlanState) -> None:
    """A newer fix on the table hides no undo; each asks back with its own text, in a block of its own."""
    view = replace(
        with_plan(shown, plan_id="p-9", can_undo=shown is PlanState.NOT_VERIFIED),
        earlier_plans=(
            earlier("p-0", number=7),
            earlier("p-1", PlanState.FAILED, number=6),
            earlier("p-2", PlanState.VERIFIED, number=5),
            earlier("p-3", can_undo=False),
            earlier("p-4", PlanState.DENIED),
        ),
    )
    undos = undos_of(view)

    assert undos.keys() - {"p-9"} == {"p-0", "p-1", "p-2"}
    assert ("p-9" in undos) is (shown is PlanState.NOT_VERIFIED)
    for plan_id, number in (("p-0", 7), ("p-1", 6), ("p-2", 5)):
        assert undos[plan_id]["text"]["text"] == f"Undo: Roll back to {number}"
        assert f"back to version {number}." in undos[plan_id]["confirm"]["text"]["text"]
    check_limits(card(view))
    assert faults_in(card(view).blocks) == []
    assert undos_of(replace(view, offers_fixes=False)) == {}
    assert undos_of(replace(view, state=CardState.RESOLVED)) == undos


def test_a_hundred_earlier_fixes_still_make_a_card() -> None:
    """The newest undos are offered, within the fifty blocks of a message."""
    view = replace(flooded("&" * 400), earlier_plans=tuple(earlier(f"p-{number}") for number in range(100)))

    assert "p-99" in undos_of(view)
    check_limits(card(view))
    assert faults_in(card(view).blocks) == []


@pytest.mark.parametrize(
    ("state", "by", "expected"),
    [
        (CardState.DIAGNOSING, "", True),
        (CardState.OPEN, "", True),
        (CardState.OPEN, "Alice Ahn", False),  # PagerDuty is being told
        (CardState.ACKNOWLEDGED, "", False),
        (CardState.ACKNOWLEDGED, "Alice Ahn", False),
        (CardState.RESOLVED, "", False),
    ],
)
def test_acknowledging_is_offered_while_nobody_did(state: CardState, by: str, *, expected: bool) -> None:
    """After PagerDuty took an acknowledgement back, nobody has acknowledged, and somebody can again."""
    view = replace(DIAGNOSED, state=state, acknowledged_by=by)

    assert ("acknowledge" in buttons_of(card(view))) is expected


def test_a_step_in_doubt_is_asked_in_words() -> None:
    """Nobody has to guess what the three buttons are about."""
    words = words_of(card(VARIANTS["in doubt"]))

    assert "may or may not have run" in words
    assert "look at the system itself" in words


def test_a_step_for_hands_is_not_called_a_doubt() -> None:
    """Who reads "cut off" would look for a crash that there was not; "I did it" and "Stop here" are the answers."""
    doubt = VARIANTS["in doubt"]
    assert doubt.plan is not None
    shown = card(replace(doubt, plan=replace(doubt.plan, state=PlanState.WAITING)))

    assert "for a person" in words_of(shown)
    assert "cut off" not in words_of(shown)
    assert {"settle_ran", "settle_stop"} <= set(buttons_of(shown))
    assert "settle_not_run" not in buttons_of(shown)


def test_an_unknown_service_is_shown_with_a_next_step() -> None:
    """An alert of a service that is not configured is not dropped."""
    assert "not in watchkeeper.toml" in words_of(card(VARIANTS["not configured"]))


def test_where_nothing_can_be_told_the_card_says_what_to_look_at() -> None:
    """No calm words about telemetry that did not answer, and no cause with a percentage."""
    words = words_of(card(VARIANTS["nothing can be told"]))

    assert "Nothing can be told: none of the 40 questions could be answered." in words
    assert "*Check next*  No answer within 3 s (4 open questions less)" in words
    assert "Not checked: queue, kv cache, prefill and 1 more (no answer within 3 s)" in words
    assert "as it usually does" not in words


def test_calm_says_how_much_was_asked() -> None:
    """Nothing is wrong, as far as it could be seen: the open questions are counted."""
    words = words_of(card(replace(VARIANTS["nothing wrong"], asked=40, unanswered=12)))

    assert "12 of 40 questions stayed open." in words


def test_evidence_links_to_its_graph() -> None:
    """Our own address, as a link; an odd or endless one is left out, never shown."""
    message = json.dumps(card(DIAGNOSED).blocks)
    endless = replace(DIAGNOSED, evidence=(replace(DIAGNOSED.evidence[0], url=f"http://p.example.com/{'x' * 900}"),))

    assert f"<{GRAPH.replace('&', '&amp;')}|graph>" in message
    assert "p.example.com" not in json.dumps(card(endless).blocks)


def test_blind_spots_are_three_lines_and_a_number() -> None:
    """One screen: the thread has the rest."""
    spots = tuple(BlindLine(checks=(f"check {n}", "another"), why=f"reason {n}") for n in range(6))
    words = words_of(card(replace(DIAGNOSED, blind_spots=spots)))

    assert words.count("Not checked:") == 3
    assert "… and 6 more in the thread" in words
    assert "check 5, another (reason 5)" in words_of(thread.evidence(replace(DIAGNOSED, blind_spots=spots)))


def test_a_rival_is_named_when_it_is_close() -> None:
    """A quarter of the first one's probability is worth a line, less is for the thread."""
    first, second = DIAGNOSED.causes
    close = replace(DIAGNOSED, causes=(replace(first, probability=0.8), replace(second, probability=0.2)))
    far = replace(DIAGNOSED, causes=(replace(first, probability=0.6), replace(second, probability=0.14)))

    assert "It may also be: More load than capacity (20 %)" in words_of(card(close))
    assert "It may also be" not in words_of(card(far))


def test_the_thread_spares_the_reasons_of_what_nobody_considers() -> None:
    """A cause below one in a hundred stands with its number only; who is hurt stands on top."""
    first, second = DIAGNOSED.causes
    against = ("queueing stays at 20 ms, but should be up",)
    told = words_of(thread.evidence(replace(DIAGNOSED, causes=(first, replace(second, evidence_against=against)))))
    spared = words_of(
        thread.evidence(
            replace(DIAGNOSED, causes=(first, replace(second, probability=0.002, evidence_against=against)))
        )
    )

    assert against[0] in told
    assert against[0] not in spared
    assert "More load than capacity" in spared
    assert "*Who is hurt*  4.1 % of requests fail" in spared


def test_an_unsure_diagnosis_says_so() -> None:
    """Below one half the card calls it a guess and names the runner-up."""
    words = words_of(card(VARIANTS["not sure"]))

    assert "40 %, a guess" in words
    assert "It may also be: More load than capacity (40 %)" in words


@pytest.mark.parametrize("state", list(PlanState))
def test_every_state_of_a_plan_has_words(state: PlanState) -> None:
    """No state of a plan can break the card, or show a constant of the program."""
    assert f"{state.name}" not in words_of(card(with_plan(state, doubt_step=0)))


def messages_of(view: Any) -> list[Message]:
    return [card(view), thread.evidence(view), *([thread.progress(view.plan)] if view.plan else [])]


def check_limits(message: Message) -> None:
    """Slack's limits, transcribed from its reference: blocks 50, section 3000, header 150, confirm 300, option 75."""
    assert 0 < len(message.text) <= 3000
    assert len(message.blocks) <= 50
    for block in message.blocks:
        if block["type"] == "section":
            assert 0 < len(block["text"]["text"]) <= 3000
        elif block["type"] == "header":
            assert 0 < len(block["text"]["text"]) <= 150
        elif block["type"] == "context":
            assert all(0 < len(element["text"]) <= 3000 for element in block["elements"])
            assert len(block["elements"]) <= 10
        elif block["type"] == "actions":
            assert 0 < len(block["elements"]) <= 25
    for element in (node for node in walk(message.blocks) if "action_id" in node):
        assert len(element.get("value", "")) <= 2000
        if confirm := element.get("confirm"):
            assert 0 < len(confirm["text"]["text"]) <= 300
        for option in element.get("options", []):
            assert 0 < len(option["text"]["text"]) <= 75
            assert len(option["value"]) <= 150
        assert len(element.get("options", [])) <= 100
    ids = [block["block_id"] for block in message.blocks if "block_id" in block]
    assert len(ids) == len(set(ids))
    assert all(node["verbatim"] for node in walk(message.blocks) if node.get("type") == "mrkdwn")


@pytest.mark.parametrize("text", ["x", "&<>" * 1000, "a\nword\n" * 1000, "🙂" * 3000])
def test_limits_are_kept_whatever_the_length(text: str) -> None:
    """The longest texts and lists still make a message that Slack takes; what is left out is counted."""
    for message in messages_of(flooded(text)):
        check_limits(message)
    assert "more in the thread)" in words_of(card(flooded(text)))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_within_limits(name: str) -> None:
    """Each state of the story makes a valid card and thread."""
    for message in messages_of(VARIANTS[name]):
        check_limits(message)


# --- what Slack would make of a text, in the words of its formatting reference -------------------------------------

LIVE = re.compile(r"<([^<>]*)>")
BROADCAST = re.compile(r"@\s*(?:channel|here|everyone|group)\b", re.IGNORECASE)
AUTO_LINK = re.compile(r"\b(?:https?|ftp|file|slack|mailto|tel):(?://)?\w|\bwww\.\w", re.IGNORECASE)

hostile_piece = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "<!channel>",
            "<!here|x>",
            "<!everyone>", "<@U0BOB>", "<#C0|x>",
            "<!subteam^S1>", "<https://evil.example|P>",
            "@here", "@channel",
            "@EVERYONE", "@\u200bhere", "@\u2060channel", "&lt;!here&gt;", "&amp;lt;", "<", ">", "&",
            "https://evil.example/a", "HTTP://EVIL", "www.e.example",
            "mailto:a@b.c", "slack://x",
            "<\u200b!here>", "<\x00!here>",
            "*bold*", "_it_", "~no~", "`code`", "```", "```\n<!here>", "\n> quote", "\n# Head", "**x**",
            "[a](https://e.example)",
            "\u202egnp.exe", "\U000e0041", "\ud800", "\x00", ":tada:", "|", "xoxb-" + "1234567890-abcdef",
        ]
    ),
)  # fmt: skip
hostile = st.lists(hostile_piece, max_size=8).map("".join)


def dead(text: str) -> None:
    """No link, mention or automatic link can arise from this mrkdwn."""
    assert not LIVE.search(text), text
    assert "<" not in text
    assert ">" not in text
    assert not BROADCAST.search(html.unescape(text)), text
    assert not AUTO_LINK.search(html.unescape(text)), text
    assert not re.search(r"&(?!amp;|lt;|gt;)", text), text
    text.encode()  # raises when a lone surrogate is left
    assert "\x00" not in text
    assert "xoxb-" + "1234567890" not in text


@settings(max_examples=800, deadline=None)
@given(hostile, st.integers(10, 200))
def test_no_text_comes_alive(text: str, limit: int) -> None:
    """Whatever a title or a log line holds, it stays text, at any cut."""
    shown = inline(text, limit)

    dead(shown)
    assert len(shown) <= limit
    assert "\n" not in shown
    assert "`" not in shown
    assert not BROADCAST.search(plain(text, 150))
    assert not AUTO_LINK.search(plain(text, 150))


@settings(max_examples=200, deadline=None)
@given(hostile)
def test_no_diff_leaves_its_box(text: str) -> None:
    """A diff cannot close the preformatted block around it."""
    shown = code(text + "\n" + text)

    assert shown.startswith("```")
    assert shown.count("```") == 2
    dead(shown)


@settings(max_examples=25, deadline=None)
@given(hostile)
def test_no_card_comes_alive(text: str) -> None:
    """The whole card, the thread and the answers: the only links are the ones that we built."""
    assume(not is_web_address(text))  # a runbook's address may be linked, if it is one
    hit = Hit(doc_id="r", title=text, heading=text, score=1.0, reasons=(text,), url=text)
    flood = replace(flooded(text), url="https://acme.pagerduty.com/incidents/Q1")
    messages = [
        *messages_of(flood),
        sentence(text),
        thread.note(text),
        answers.hits(text, [hit]),
        answers.help_text([], text),
    ]
    for message in messages:
        for node in walk(message.blocks):
            if node.get("type") == "mrkdwn":
                ours = node["text"].replace("<https://acme.pagerduty.com/incidents/Q1|PagerDuty #7>", "")
                dead(ours)
        dead(message.text)


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)", "https://evil.example|x", "https://a.example/>", "http://u:p@a.example", "https:///x",
        "//a.example",
        "https://a.example/ b", "https://[", "ftp://a.example", "https://a.example/\u202e", "", "https://" + "a" * 3000,
    ],
)  # fmt: skip
def test_odd_addresses_are_no_links(url: str) -> None:
    """Only plain http and https with a host become a link."""
    assert not is_web_address(url)
    assert link(url, "label") == "label"


def test_a_label_cannot_pretend_to_be_another_address() -> None:
    """A label that looks like an address is shown without the link beneath it."""
    assert link("https://a.example/x?a=1&b=2", "Runbook") == "<https://a.example/x?a=1&amp;b=2|Runbook>"
    assert "<" not in link("https://evil.example", "https://acme.pagerduty.com")
    assert "<" not in link("https://evil.example", "acme.com")


def test_numbers_and_names_stay_readable() -> None:
    """Escaping changes nothing that people write every day."""
    assert (
        inline("TTFT 1.4 * baseline, chat_system_v2, 40 % -> 3 %")
        == "TTFT 1.4 * baseline, chat_system_v2, 40 % -&gt; 3 %"
    )
    assert inline("a" * 20, 10) == "a" * 9 + "…"


def test_lines_left_out_are_counted() -> None:
    """Cutting is never silent."""
    assert lines_within(["a" * 30] * 5, 100) == "a" * 30 + "\n" + "a" * 30 + "\n… (3 more in the thread)"
    assert "2 more lines" in code("\n".join("abcd"), max_lines=2)


# --- the strict validator of the practice range, where it is at hand ------------------------------------------------


def stand_ins() -> ModuleType:
    """`blockkit.py` from the folder that WATCHKEEPER_STANDINS names."""
    folder = os.environ.get("WATCHKEEPER_STANDINS", "")
    path = Path(folder) / "blockkit.py"
    if not folder or not path.is_file():
        pytest.skip("WATCHKEEPER_STANDINS names no folder with blockkit.py")
    spec = importlib.util.spec_from_file_location("blockkit", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", [*VARIANTS, "flooded"])
def test_the_strict_validator_finds_nothing(name: str) -> None:
    """Block Kit's own rules and a lint for secrets, mentions and Markdown."""
    blockkit = stand_ins()
    view = VARIANTS.get(name) or flooded(
        "**a** `b` <!here> & @channel [x](https://e.example)\n# h\npassword=hunter22hunter"
    )
    for message in messages_of(view):
        payload = json.loads(json.dumps({"text": message.text, "blocks": message.blocks}))
        assert blockkit.check_blocks(payload["blocks"], "message") == []
        assert blockkit.lint(payload) == []
