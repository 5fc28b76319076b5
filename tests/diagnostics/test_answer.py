"""Case folders in, answers out: the format that other people's cases and evaluations rely on."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped] # ships no types

from diagnostics.answer import CaseError, as_answer, diagnose_case, load_case
from tests import synthetic
from tests.case_folders import truth_json, write_case

TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"}
DIMENSIONS = [
    "fleet",
    "pod",
    "node",
    "rack",
    "revision",
    "model",
    "provider",
    "account",
    "api_key",
    "tenant",
    "route",
    "prompt",
    "prompt_version",
    "tool",
    "agent",
    "data_source",
    "policy",
    "evaluator",
    "segment",
    "deployment",
    "adapter",
]
SCOPE = {
    "type": "object",
    "required": ["dimension", "values"],
    "properties": {"dimension": {"enum": DIMENSIONS}, "values": {"type": "array", "items": {"type": "string"}}},
    "additionalProperties": False,
}
ANSWER = {
    "type": "object",
    "required": ["service", "at", "user_impact", "causes", "scope", "culprit_change", "blind_spots"],
    "properties": {
        "service": {"type": "string"},
        "at": TIME,
        "since": {"oneOf": [TIME, {"type": "null"}]},
        "user_impact": {"type": "boolean"},
        "causes": {
            "type": "array",
            "minItems": 3,
            "items": {
                "type": "object",
                "required": ["cause", "probability", "for", "against"],
                "properties": {
                    "cause": {"type": "string", "pattern": "^([GSIQX][0-9]{2}|none|other)$"},
                    "probability": {"type": "number", "minimum": 0, "maximum": 1},
                    "for": {"type": "array", "items": {"type": "string"}},
                    "against": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
        "scope": {"oneOf": [SCOPE, {"type": "null"}]},
        "culprit_change": {"type": ["string", "null"]},
        "suspects": {"type": "array"},
        "impact": {
            "oneOf": [
                {
                    "type": "object",
                    "required": ["sentence", "failing", "slow", "spoiled", "tenants", "hurt", "burn_rate"],
                    "properties": {"sentence": {"type": "string"}, "hurt": {"type": "array"}},
                },
                {"type": "null"},
            ]
        },
        "blind_spots": {"type": "array", "items": {"type": "object", "required": ["check", "why"]}},
        "next_check": {"type": ["string", "null"]},
    },
}


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """The reference incident as a case folder, with its truth, which nobody may read."""
    folder = write_case(tmp_path / "case", truth_json("S04"))
    (folder / "truth.json").write_text("this is no JSON: whoever reads it fails")
    return folder


async def test_a_case_is_answered_in_its_format(case: Path) -> None:
    """The answer fits the schema, names cause and culprit, and survives JSON."""
    answer = as_answer(await diagnose_case(case))
    Draft202012Validator(ANSWER).validate(json.loads(json.dumps(answer)))
    assert answer["causes"][0]["cause"] == "S04"
    assert answer["culprit_change"] == "prompts:chat-system:8"
    assert answer["at"] == "2026-03-02T14:00:00Z"
    assert sum(cause["probability"] for cause in answer["causes"]) <= 1


async def test_compressed_telemetry_and_the_products_own_file_are_read(case: Path) -> None:
    """metrics.om.gz instead of metrics.om, and a [[service]] table as in watchkeeper.toml."""
    text = (case / "metrics.om").read_bytes()
    (case / "metrics.om").unlink()
    (case / "metrics.om.gz").write_bytes(gzip.compress(text))
    (case / "service.toml").write_text(
        '[[service]]\nname = "chat"\n[service.selectors]\nserving = {namespace = "chat"}\n'
    )
    read = load_case(case)
    assert (read.target.service, read.at) == ("chat", synthetic.END)
    assert await read.telemetry.exported("vllm:num_requests_running", read.at)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("alert.json", "{", "alert.json is not JSON"),
        ("alert.json", '{"incident": {"created_at": "noon"}}', "alert.json: incident.created_at"),
        ("service.toml", "name = ", "service.toml is not TOML"),
        ("service.toml", 'name = "chat"', "service.toml: selectors: Field required"),
        ("service.toml", 'name = "c"\n[selectors]\nmars = {a = "b"}', "service.toml: selectors.mars"),
        ("changes.json", '[{"id": "x"}]', "changes.json: 0.at"),
        ("changes.json", '{"id": "x"}', "changes.json: the top"),
        ("metrics.om", "what is this\n", "metrics.om: "),
    ],
)
def test_a_broken_file_is_named_with_its_place(case: Path, file: str, content: str, words: str) -> None:
    """Whoever wrote the case learns which file, where in it, and why."""
    (case / file).write_text(content)
    with pytest.raises(CaseError) as refused:
        load_case(case)
    assert words in str(refused.value)


@pytest.mark.parametrize("file", ["alert.json", "service.toml", "changes.json", "metrics.om"])
def test_a_missing_file_is_named(case: Path, file: str) -> None:
    """No file is optional, so that a typo in a name is not an empty case."""
    (case / file).unlink()
    with pytest.raises(CaseError, match=file.replace(".", r"\.")):
        load_case(case)
