"""Drills: every fault breaks the world and is healed by its runbook's work alone; endings are judged and told."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from bot.library import open_shelf
from lab.actors import Channel, Outcome, fix_on, step_waiting, steps_on
from lab.alert_rules import RULES
from lab.commands import drill
from lab.drills import CONFIRMED, Judgement, checks, report, second_best, write_report
from lab.scenarios.fault_drill import FaultDrill
from lab.scenarios.faults import FAULTS
from lab.training import Diary
from tests.lab.played_worlds import SmallWorld

SHELF = open_shelf()
INSTRUCTIONS = {
    cause: [
        step.otherwise or str(step.params["instruction"])
        for book in SHELF.runbooks.values()
        if cause in book.causes
        for step in book.steps
        if step.action == "manual" or step.otherwise
    ]
    for cause in FAULTS
}
"""What a person is asked to do, always or where it cannot be done by machine."""
BY_HAND = sorted(id_ for id_, fault in FAULTS.items() if fault.by_hand)


def broken(id_: str) -> tuple[FaultDrill, SmallWorld]:
    """The fault as a drill plays it, in a world that has lived until it is there."""
    played = FaultDrill(FAULTS[id_](FAULTS[id_].drill_strength))
    world = SmallWorld(seed=3, fault=played)  # type: ignore[arg-type]
    assert played.is_healthy(world.stage)
    deeds = played.deeds(world.fleet.next_step)
    until = world.fleet.now + timedelta(minutes=12)
    while played.is_healthy(world.stage) and world.fleet.next_step <= until:
        while deeds and deeds[0].at <= world.fleet.next_step:
            deeds.pop(0).do(world.stage)
        world.fleet.step()
    return played, world


@pytest.mark.parametrize("id_", sorted(FAULTS))
def test_a_fault_breaks_the_world(id_: str) -> None:
    """It pages by a rule of the pack; a world that was healthy before is not afterwards, but for what hurts nobody."""
    played, world = broken(id_)

    assert played.rules == (RULES[FAULTS[id_].alert],)
    assert played.is_healthy(world.stage) == FAULTS[id_].is_harmless
    assert played.truth(world.stage)["cause"] == id_


@pytest.mark.parametrize("id_", BY_HAND)
def test_work_by_hand_heals_where_the_runbook_asks_for_it(id_: str) -> None:
    """The work of another cause's runbook changes nothing; that of its own does, within minutes of loading weights."""
    played, world = broken(id_)
    own = INSTRUCTIONS[id_]
    others = {text for cause in FAULTS for text in INSTRUCTIONS[cause]} - set(own)

    assert not any(played.carry_out(text, world.stage, world.fleet.now) for text in others)
    assert not played.is_healthy(world.stage)

    assert [text for text in own if played.carry_out(text, world.stage, world.fleet.now)]
    until = world.fleet.now + timedelta(minutes=12)
    while not played.is_healthy(world.stage) and world.fleet.next_step <= until:
        world.fleet.step()
    assert played.is_healthy(world.stage)


# -- what people see, and what is told afterwards ---------------------------------------------------------------------


def card(state: str, *elements: dict[str, str]) -> Channel:
    """A card with a fix of two steps."""
    text = (
        f"*Fix*  GPU fails · in prod · {state}\n1. The node is cordoned. · _verified_\n"
        "2. A person does this by hand: Reset the GPU.\n"
        "10:03 UTC Alice Ahn acknowledged the incident · 10:04 UTC Dana Duarte approved the fix"
    )
    blocks: list[Any] = [{"type": "section", "text": {"type": "mrkdwn", "text": text}}]
    if elements:
        blocks.append({"type": "actions", "elements": list(elements)})
    return {"messages": [{"user": "U0WATCH", "ts": "1.0", "blocks": blocks, "replies": []}]}


def test_a_fix_is_read_from_the_card() -> None:
    """Its title, its state, its steps, and which of them waits for a person."""
    waiting = card("waits", {"type": "button", "action_id": "settle_ran", "value": "plan-7:1"})

    assert fix_on(waiting) == ("GPU fails · in prod", "waits")
    assert steps_on(waiting)[1] == "A person does this by hand: Reset the GPU."
    assert step_waiting(waiting) == 1
    assert step_waiting(card("running")) is None
    assert fix_on({"messages": []}) == ("", "")


@pytest.mark.parametrize(
    ("state", "is_healed", "verdict", "is_good"),
    [
        (CONFIRMED, False, "falsely verified", False),
        (CONFIRMED, True, "healed the world, too", True),
        ("done, but the telemetry did not recover", False, "done, but the telemetry did not recover", True),
        ("", False, "did not end", True),
    ],
)
def test_a_wrong_fix_must_not_pass_for_a_success(state: str, is_healed: bool, verdict: str, is_good: bool) -> None:  # noqa: FBT001 - a case
    """Whatever the card says of it, the world is asked."""
    judged = second_best("G01", Outcome(fix="Restart", state=state), is_healed=is_healed)

    assert (judged.verdict, judged.resolved) == (verdict, is_good)


@pytest.mark.parametrize(
    ("name", "cards", "outcome", "is_healed", "missing"),
    [
        ("G01", "*A GPU is lost* (G01), 99 %", Outcome(fix="Reboot", state=CONFIRMED), True, []),
        (
            "G01",
            "*A GPU is lost* (G01), 99 %",
            Outcome(fix="Reboot", state=CONFIRMED),
            False,
            ["the world is not healed"],
        ),
        ("G01", "*A GPU hangs* (G09), 99 %", Outcome(), False, ["the card names G09, not G01", "no fix was offered"]),
        ("G01", "*A GPU is lost* (G01)", Outcome(fix="x", state="done"), True, ["the fix ended as: done"]),
        ("Q08", "*The judge changed* (Q08)", Outcome(fix="x", state="done", is_by_hand_only=True), False, []),
        ("Q08", "*The judge* (Q08)", Outcome(fix="x", state="done"), False, ["more was done than to write it down"]),
    ],
)
def test_a_good_end_needs_cause_cure_and_proof(
    name: str,
    cards: str,
    outcome: Outcome,
    is_healed: bool,  # noqa: FBT001 - a case
    missing: list[str],
) -> None:
    """The card, the fix and the world are each asked; of what is only recorded, that nothing else was done."""
    truth = {"cause": name, "healed": is_healed, "violations": []}

    assert [what for what, is_so in checks(name, truth, cards, outcome).items() if not is_so] == missing


def test_a_report_counts_what_ended_well(tmp_path: Path) -> None:
    """The shape that other tools read."""
    good = Judgement(scenario="G01", resolved=True, verdict="verified", runbook="Reboot", seconds=41.234)
    bad = Judgement(scenario="G02", resolved=False, verdict="failed", runbook="", seconds=9, why="no fix was offered")
    write_report(tmp_path / "drills.json", [good, bad])

    assert json.loads((tmp_path / "drills.json").read_text()) == report([good, bad])
    assert (report([good, bad])["total"], report([good, bad])["resolved"]) == (2, 1)
    assert set(report([bad])["drills"][0]) == {"scenario", "resolved", "verdict", "runbook", "seconds", "why"}


def test_a_debriefing_says_who_did_what_when() -> None:
    """Beside what the fix asked for, and with the cause that nobody was told before."""
    times = iter([100.0, 101.0, 110.0, 115.0, 131.0, 160.0])
    diary = Diary(clock=lambda: next(times))
    diary.note("paged")
    diary.look(card("waits for approval"), is_resolved=False)
    diary.look(card("waits for approval"), is_resolved=False)
    diary.look(card("done, and the telemetry confirms it"), is_resolved=False)
    told = "\n".join(diary.told("G02"))

    assert "It was G02: A GPU's memory fails and keeps killing its pod." in told
    assert " 0:10  (+9 s)  Alice Ahn acknowledged the incident" in told
    assert " 0:15  (+5 s)  Dana Duarte approved the fix" in told
    assert " 1:00  (+29 s)  GPU fails · in prod: done, and the telemetry confirms it" in told
    assert "GPU fails · in prod (was carried out: done, and the telemetry confirms it)" in told
    assert "    2. A person does this by hand: Reset the GPU." in told


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(("S99",), "name one of G01"), ((), "or say --all"), (("--all",), "needs --headless")],
)
def test_a_drill_that_cannot_be_played_is_refused(arguments: tuple[str, ...], complaint: str) -> None:
    """Before anything is started, in words."""
    app = typer.Typer()
    app.command()(drill)
    told = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})

    assert told.exit_code == 2
    assert complaint in told.output
