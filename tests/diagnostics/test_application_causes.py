"""Integration, quality and security causes end to end: the right one first, with its scope, and no change to go by."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diagnostics.causes import knowledge
from diagnostics.runner import Diagnoser
from tests import synthetic
from tests.application_world import Key, Tool, World, telemetry, with_cells

WELL = World()
CHAT = {"route": "/chat", "model": "chat-8b"}


def all_cells(**changes: object) -> World:
    return with_cells(WELL, {}, **changes)


def new_version(**changes: object) -> World:
    """Version 8 of the chat prompt took its traffic over; its answers are as said."""
    return with_cells(WELL, {"prompt": "chat-system"}, version="8", **changes)


def one_key(**changes: object) -> tuple[Key, ...]:
    return (replace(WELL.keys[0], **changes), *WELL.keys[1:])  # type: ignore[arg-type]


FAULTS: dict[str, tuple[World, tuple[str, ...]]] = {
    "Q01": (new_version(valid=0.75, judge=0.80), ("8",)),
    "Q02": (new_version(refusal=0.17, judge=0.76, down=0.10, tokens=150.0), ("8",)),
    "Q03": (
        with_cells(WELL, {"model": "gpt-x"}, refusal=0.05, valid=0.93, judge=0.74, tokens=170.0),
        ("gpt-x",),
    ),
    "Q05": (with_cells(WELL, {"route": "/summary"}, truncated=0.5, valid=0.8, tokens=150.0), ("/summary",)),
    "Q06": (replace(all_cells(judge=0.80), drift={"en": 0.5, "de": 0.8}, score=0.65), ("de",)),
    "Q08": (replace(all_cells(judge=0.74), evaluator="5"), ("5",)),
    "Q09": (replace(all_cells(down=0.09), blocked=0.11, policy="15"), ("15",)),
    "I03": (
        replace(
            with_cells(WELL, {"model": "gpt-x"}, status={"5xx": 0.001, "4xx": 0.005, "429": 0.8}),
            provider_errors={"insufficient_quota": 4.8},
            retry=1.2,
        ),
        ("main",),
    ),
    "I05": (
        replace(
            all_cells(down=0.09, judge=0.75),
            stages={**WELL.stages, "retrieval": 3.0},
            retrieval={"empty": 0.1, "error": 0.02, "timeout": 0.3},
        ),
        ("docs",),
    ),
    "I06": (
        replace(
            all_cells(down=0.12, judge=0.68),
            stages={**WELL.stages, "retrieval": 0.02},
            retrieval={"empty": 0.01, "error": 0.97, "timeout": 0.0},
        ),
        ("docs",),
    ),
    "I07": (
        replace(all_cells(down=0.1, judge=0.71), retrieval={"empty": 0.5, "error": 0.0, "timeout": 0.0}, score=0.45),
        ("docs",),
    ),
    "I08": (
        replace(
            all_cells(judge=0.79, tokens=370.0),
            tools=(Tool("search", "read", "assistant", 10.0, errors=0.45), *WELL.tools[1:]),
            retry=1.15,
        ),
        ("search",),
    ),
    "I09": (replace(WELL, stages={**WELL.stages, "guardrail_in": 2.0}), ()),
    "I12": (with_cells(WELL, {"route": "/summary"}, status={"5xx": 0.001, "4xx": 0.4, "429": 0.0005}), ("/summary",)),
    "X01": (
        replace(WELL, injected={**WELL.injected, "user-1": 1.0, "user-2": 0.8}, blocked=0.04),
        ("user-1", "user-2"),
    ),
    "X02": (replace(WELL, poisoned={"wiki": 1.0, "mails": 0.004}, blocked=0.03), ("wiki",)),
    "X03": (replace(WELL, leaks={("email", "7", f"tenant-{n}"): 0.2 for n in range(1, 6)}), ("7",)),
    "X05": (
        replace(
            WELL,
            keys=one_key(share=1.2, models={"chat-8b": 0.5, "gpt-x": 0.1, "gpt-xl": 0.4}),
            prices={**WELL.prices, "gpt-xl": 0.5e-6},
            drift={"en": 0.5, "de": 0.51, "key-1": 0.75},
        ),
        ("key-1",),
    ),
    "X06": (replace(WELL, tools=(*WELL.tools[:2], Tool("tickets", "write", "clerk", 6.0, approved=0.5))), ("clerk",)),
    "X07": (
        replace(
            WELL,
            cells=(*WELL.cells[:2], *(replace(cell, model="gpt-x") for cell in WELL.cells[2:5]), *WELL.cells[5:]),
        ),
        ("/chat",),
    ),
}


ENGINES = {  # what the engines do beside: prompts that are too long are longer for all
    "I12": synthetic.Scenario(engine=lambda _, state, __: replace(state, prompt_tokens=3600)),
}


@pytest.mark.parametrize("cause", FAULTS)
async def test_a_fault_of_the_application_is_recognised(cause: str) -> None:
    """Its cause comes first and its place is named; a control hurts nobody."""
    world, place = FAULTS[cause]
    engines = ENGINES.get(cause, "none")
    diagnosis = await Diagnoser(telemetry(world, engines), patience_s=30).diagnose(synthetic.target())
    first = diagnosis.causes[0]
    assert first.cause == cause, [(one.cause, one.probability) for one in diagnosis.causes[:4]]
    assert diagnosis.scope is not None
    assert diagnosis.scope.values == place
    if knowledge.load().causes[cause].is_control:
        assert diagnosis.user_impact is False


async def test_a_mixed_rollout_is_told_from_a_sick_gpu() -> None:
    """Two pods with a revision of their own answer worse; with the fleet's revision it would be hardware."""
    world = with_cells(WELL, {"pod": synthetic.PODS[0]}, judge=0.6, valid=0.9)
    world = with_cells(world, {"pod": synthetic.PODS[1]}, judge=0.6, valid=0.9)
    diagnosis = await Diagnoser(telemetry(world), patience_s=30).diagnose(synthetic.target())
    assert {"G10", "Q04"} & {one.cause for one in diagnosis.causes[:3]}


async def test_an_application_that_is_well_accuses_nobody() -> None:
    """Every application check has an opinion, none complains, and `none` is first."""
    diagnosis = await Diagnoser(telemetry(WELL), patience_s=30).diagnose(synthetic.target())
    assert diagnosis.causes[0].cause == "none"
    assert diagnosis.user_impact is False
    blind = {spot.check for spot in diagnosis.blind_spots}
    assert not blind & {"output_quality", "answers_apart", "tool_calls", "injection", "sensitive_output", "impact"}
