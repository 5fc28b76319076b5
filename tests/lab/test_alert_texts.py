"""`watchkeeper eval alerts`: what the texts must be for its figures to mean something, and that the figures add up."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import runbooks
from bot.incidents import Alert
from bot.library import open_shelf
from bot.question import question_of
from diagnostics.causes import knowledge
from diagnostics.diagnosis import Diagnosis, RankedCause
from lab.alert_texts.command import report
from lab.alert_texts.evaluate import DIAGNOSED, MISLED, TEXT, evaluate, misled, question, shipped
from lab.alert_texts.texts import FAMILIES, UNCOVERED, AlertTexts, AlertTextsError
from retrieval.documents import Origin
from tests.diagnosed import frame_of
from tests.retrieval.hashing_embedder import HashingEmbedder

RUN = 6
SENTENCE = 5  # four words in a row are often a metric or a line of a log, which the tools do write


@pytest.fixture(scope="module")
def texts() -> AlertTexts:
    return AlertTexts.read()


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def runs(text: str) -> set[tuple[str, ...]]:
    spoken = words(text)
    return {tuple(spoken[at : at + RUN]) for at in range(len(spoken) - RUN + 1)}


def test_no_text_repeats_six_words_or_a_sentence_of_a_runbook(texts: AlertTexts) -> None:
    """Who copies the answer into the question measures nothing."""
    pages = [page.read_text(encoding="utf-8") for page in Path(runbooks.__file__).parent.glob("*.md")]
    written = set().union(*map(runs, pages))
    sentences = {
        " ".join(words(sentence))
        for page in pages
        for sentence in re.split(r"[.:;|?!\n]+", page)
        if len(words(sentence)) >= SENTENCE
    }
    assert len(written) > 10_000
    assert len(sentences) > 1_000

    copied = [
        (text.id, run)
        for family in texts.families.values()
        for text in family
        for run in [
            *(runs(text.text) & written),
            *(sentence for sentence in sentences if f" {sentence} " in f" {' '.join(words(text.text))} "),
        ]
    ]
    assert copied == []


def test_every_scenario_has_four_texts_in_different_voices(texts: AlertTexts) -> None:
    """192 over the 48 scenarios, forty that no runbook covers, and no text twice."""
    covered = [text for family in FAMILIES for text in texts.families[family]]
    every = [*covered, *texts.families[UNCOVERED]]

    assert Counter(text.cause for text in covered) == dict.fromkeys(knowledge.load().causes, 4)
    assert len(texts.families[UNCOVERED]) == 40
    assert len({text.id for text in every}) == len({text.text for text in every}) == len(every)
    voices: dict[str, set[str]] = {}
    for text in covered:
        voices.setdefault(str(text.cause), set()).add(text.voice)
    assert all(len(heard) >= 3 for heard in voices.values())


def test_a_text_is_answered_by_pages_that_treat_its_cause(texts: AlertTexts) -> None:
    """The judgements name runbooks that exist and declare the cause; few alerts have a name that a runbook declares."""
    pages = {page.doc_id: page for page in shipped()}
    covered = [text for family in FAMILIES for text in texts.families[family]]

    assert [text.id for text in covered for page in text.runbooks if text.cause not in pages[page].causes] == []
    declared = {alert for page in pages.values() for alert in page.alerts}
    assert 0 < sum(text.alert in declared for text in covered) <= 10
    assert {page for text in covered for page in text.runbooks} == set(pages)


def test_a_wrong_diagnosis_names_the_likeliest_other_cause_first() -> None:
    """Neither "other" nor "none" takes the true one's place; an answer that is wrong already stays."""
    ranked = (("G04", 0.9), ("other", 0.05), ("G05", 0.03))

    assert misled(ranked, "G04") == (("G05", 0.9), ("other", 0.05), ("G04", 0.03))
    assert misled(ranked, "S09") == ranked


def test_the_diagnosis_helps_and_a_wrong_one_harms(texts: AlertTexts) -> None:
    """With a bag of words for a model: the order of the three is a property of the benchmark, not of MiniLM."""
    few = AlertTexts(families={family: each[:8] for family, each in texts.families.items()}, diagnoses=texts.diagnoses)

    result = asyncio.run(evaluate(few, HashingEmbedder()))

    first = {way: result["systems"][way]["recall@1"] for way in (TEXT, DIAGNOSED, MISLED)}
    assert first[DIAGNOSED] > first[TEXT] > first[MISLED]
    assert result["n"] == 40
    assert result["uncovered"] == 8
    assert sum(part[TEXT]["n"] for part in result["per_voice"].values()) == 40
    assert f"with the diagnosis{'':20}  40  {first[DIAGNOSED]:.3f}" in report(result)


def test_question_and_runbooks_are_the_product_s_own(texts: AlertTexts) -> None:
    """The lab cannot import the product, so this holds the two together: the same words, name, causes and documents."""
    text = texts.families["gpu"][0]
    ranked = (("G01", 0.9), ("none", 0.1))
    causes = tuple(
        RankedCause(cause=cause, title=knowledge.load().causes["G01"].title, probability=likely)
        for cause, likely in ranked
    )
    page = Alert(alert_id="a", name=text.alert, summary="", labels={"alertname": text.alert})

    found = Diagnosis(service=text.service, frame=frame_of(), since=None, user_impact=True, causes=causes, findings=())
    assert question(text, ranked) == question_of(text.text, text.service, [page], found)
    assert question(text) == question_of(text.text, text.service, [page], None)
    assert shipped() == [replace(document, origin=Origin()) for document in open_shelf().documents()]


def test_a_line_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """By file and line, in one sentence."""
    (tmp_path / "gpu.jsonl").write_text('\n{"id": "G", "voice": "fax"}\n', encoding="utf-8")

    with pytest.raises(AlertTextsError, match=r"gpu\.jsonl, line 2: "):
        AlertTexts.read(tmp_path)
    (tmp_path / "gpu.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(AlertTextsError, match=r"serving\.jsonl"):
        AlertTexts.read(tmp_path)
