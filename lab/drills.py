"""
`watchkeeper drill --headless`: any faults of the catalogue, each played from the page to its end, and judged.

A drill ends well in one of three ways: the approved fix healed the world and was verified; a person did by hand, in the
lab, what a manual step asked for, and that was verified; or nothing was to be done but to write it down.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from lab.actors import Outcome, messages_in, see_through
from lab.demo import STOPPED_BY_A_PERSON, statuses_in_pagerduty
from lab.demo_processes import DemoError
from lab.drill import Drill, DrillOptions, running_drill
from lab.listening import local_client
from lab.people import BOT_USER
from lab.progress import Prefixed, Progress
from lab.scenarios import scenario
from lab.scenarios.faults import FAULTS
from lab.slack_text import as_text, lines_of

CONFIRMED = "done, and the telemetry confirms it"
VERIFIED, BY_HAND, RECORDED = "verified", "done by hand and verified", "recorded"
LOOK_EVERY_S = 0.3
_FIRST_CAUSE = re.compile(r"\*(?P<title>[^*]+)\* \((?P<cause>[A-Z]\d\d|other|none)\)")


@dataclass(frozen=True, kw_only=True)
class DrillsOptions:
    """What to play: `jobs` drills side by side, each for `deadline_s` at most, its start included."""

    drills: tuple[DrillOptions, ...]
    jobs: int = 1
    deadline_s: float = 240.0
    second_best: bool = False


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How one drill ended: `verdict` in a word or two, `runbook` by the title of the fix that was approved."""

    scenario: str
    resolved: bool
    verdict: str
    runbook: str
    seconds: float
    why: str = ""


async def play_all(options: DrillsOptions, progress: Progress) -> list[Judgement]:
    """Play every drill, each with a lab and a product of its own; one that cannot go on ends only itself."""
    places = asyncio.Semaphore(options.jobs)

    async def one(played: DrillOptions) -> Judgement:
        async with places:
            own = Prefixed(progress, played.scenario) if len(options.drills) > 1 else progress
            judged = await _play(played, options, own)
            own.say(_told(judged))
            return judged

    return await asyncio.gather(*(one(played) for played in options.drills))


def report(judged: Sequence[Judgement]) -> dict[str, Any]:
    """The JSON of a run."""
    drills = [{**asdict(one), "seconds": round(one.seconds, 1)} for one in judged]
    return {"total": len(judged), "resolved": sum(one.resolved for one in judged), "drills": drills}


def write_report(path: Path, judged: Sequence[Judgement]) -> None:
    path.write_text(json.dumps(report(judged), indent=2) + "\n", encoding="utf-8")


async def _play(played: DrillOptions, options: DrillsOptions, progress: Progress) -> Judgement:
    started_s = time.monotonic()
    try:
        async with running_drill(played, progress) as drill, local_client(base_url=drill.page) as client:
            left_s = options.deadline_s - (time.monotonic() - started_s)
            outcome = await _outcome(left_s, client, options, progress)
            judge = _judge_second_best if options.second_best else _judge
            judged = await judge(drill, client, outcome)
            await _keep_thread(drill, client)
    except DemoError as error:
        judged = Judgement(
            scenario=played.scenario, resolved=False, verdict="broke off", runbook="", seconds=0.0, why=str(error)
        )
    return replace(judged, seconds=time.monotonic() - started_s)


async def _outcome(left_s: float, client: httpx.AsyncClient, options: DrillsOptions, progress: Progress) -> Outcome:
    """What the people saw and did until the fix was over, and PagerDuty had time to hear of it."""
    outcome = Outcome()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(left_s):
            await see_through(client, progress.say, outcome, second_best=options.second_best)
    return outcome


async def _judge(drill: Drill, client: httpx.AsyncClient, outcome: Outcome) -> Judgement:
    """The world, the card and PagerDuty are each asked."""
    truth = (await client.get("/lab/truth")).json()
    cards = await _cards(client)
    missing = [what for what, is_so in checks(drill.scenario, truth, cards, outcome).items() if not is_so]
    if not missing and not await _becomes_resolved(drill):
        missing = ["PagerDuty's incident is not resolved"]
    return Judgement(
        scenario=drill.scenario,
        resolved=not missing,
        verdict=_verdict(drill, outcome) if not missing else (outcome.state or "no fix was offered"),
        runbook=outcome.fix,
        seconds=0.0,
        why="; ".join(missing),
    )


def checks(name: str, truth: Mapping[str, Any], cards: str, outcome: Outcome) -> dict[str, bool]:
    """What a good end of this drill needs, in words for where it is missing."""
    first = _FIRST_CAUSE.search(cards)
    named = first["cause"] if first else "no cause"
    needed = {
        f"the card names {named}, not {truth['cause']}": named == truth["cause"],
        "no fix was offered": bool(outcome.fix),
        "a far end was asked for what it does not know": not truth["violations"],
    }
    if not outcome.fix:
        return needed
    ended = f"the fix ended as: {outcome.state or 'it did not end'}"
    if FAULTS[name].is_only_recorded:
        return {
            **needed,
            ended: outcome.state in {"done", CONFIRMED},
            "more was done than to write it down": outcome.is_by_hand_only,
        }
    return {
        **needed,
        ended: outcome.state == CONFIRMED,
        "the world is not healed": bool(truth["healed"]),
    }


def _verdict(drill: Drill, outcome: Outcome) -> str:
    if FAULTS[drill.scenario].is_only_recorded:
        return RECORDED
    return BY_HAND if outcome.by_hand else VERIFIED


async def _judge_second_best(drill: Drill, client: httpx.AsyncClient, outcome: Outcome) -> Judgement:
    truth = (await client.get("/lab/truth")).json()
    return second_best(drill.scenario, outcome, is_healed=bool(truth["healed"]))


def second_best(name: str, outcome: Outcome, *, is_healed: bool) -> Judgement:
    """A fix for another cause: it may do no harm, or even help; a success without a healed world is a lie."""
    claims = outcome.state == CONFIRMED
    verdict = outcome.state or ("did not end" if outcome.fix else "no second fix was offered")
    if claims:
        verdict = "healed the world, too" if is_healed else "falsely verified"
    is_lie = claims and not is_healed
    return Judgement(
        scenario=name,
        resolved=not is_lie,
        verdict=verdict,
        runbook=outcome.fix,
        seconds=0.0,
        why="the telemetry was said to confirm a fix that healed nothing" if is_lie else "",
    )


async def _becomes_resolved(drill: Drill, patience_s: float = 20.0) -> bool:
    """PagerDuty hears of it by an outbox, and within seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience_s):
            while not await _is_resolved(drill):  # noqa: ASYNC110 - other processes change it
                await asyncio.sleep(LOOK_EVERY_S)
            return True
    return False


async def _is_resolved(drill: Drill) -> bool:
    incidents = await statuses_in_pagerduty(drill)
    return bool(incidents) and all(incident["status"] == "resolved" for incident in incidents)


async def _cards(client: httpx.AsyncClient) -> str:
    channel = (await client.get("/channel")).json()
    return "\n".join(line for m in channel["messages"] if m["user"] == BOT_USER for line in lines_of(m))


async def _keep_thread(drill: Drill, client: httpx.AsyncClient) -> None:
    channel = (await client.get("/channel")).json()
    text = "\n\n".join(as_text(message) for message in messages_in({"messages": channel["messages"]}))
    (drill.folder / "thread.txt").write_text(text + "\n", encoding="utf-8")


def _told(judged: Judgement) -> str:
    if judged.resolved:
        return f"{judged.verdict} after {judged.seconds:.0f} s: {judged.runbook or scenario(judged.scenario).title}"
    return f"NOT resolved after {judged.seconds:.0f} s: {judged.why}"


async def drill_all(options: DrillsOptions, json_file: Path | None) -> int:
    """Play, write the report, and give the exit status: 0 when every drill ended well."""
    stopped = asyncio.Event()
    for stop_signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(stop_signal, stopped.set)
    progress = Progress()
    playing = asyncio.create_task(play_all(options, progress))
    stop = asyncio.create_task(stopped.wait())
    await asyncio.wait({playing, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not playing.done():
        progress.say("stopping")
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        return STOPPED_BY_A_PERSON
    judged = await playing
    if json_file is not None:
        write_report(json_file, judged)
    progress.say(f"{sum(one.resolved for one in judged)} of {len(judged)} drills ended as they should")
    progress.close()
    return int(any(not one.resolved for one in judged))
