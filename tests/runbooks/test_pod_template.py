"""What a rollback changes, in words: enough to decide on, and no secret."""

from __future__ import annotations

import time
from typing import Any

import pytest

from runbooks.engine.actions.pod_template import differences

OLD, NEW = "correct-horse-battery", "staple-2026-prod"


def template(*args: str, **container: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "vllm", "args": list(args), **container}]}}


def secret_args(value: str) -> list[tuple[str, ...]]:
    """One secret as people pass it to a program."""
    return [
        ("--model", "x", "--api-key", value),
        ("--api-key", "k-1", value),
        (f"--api-key={value}",),
        ("-token", value),
        ("--hf-token", value),
        (f"--authToken={value}",),
        ("--accesskey", value),
        ("--db_password", value),
        ("--client-secret", value),
        (f"--gcp-credentials={value}",),
        (f"HF_TOKEN={value}",),
        ("-c", f"export API_KEY2={value} && vllm serve chat"),
        ("-c", f"vllm serve chat --api-key {value} --port 8000"),
        ("-c", f'curl -H "Authorization: Bearer {value}" http://127.0.0.1/ready'),
        (f'--config={{"max_tokens": 5, "apiKey": "{value}"}}',),
        (f"--url=https://metrics.example.com/push?api_key={value}",),
        (f"--db=postgresql://chat:{value}@db.internal/x",),
    ]


@pytest.mark.parametrize(("now", "then"), list(zip(secret_args(OLD), secret_args(NEW), strict=True)))
def test_a_secret_among_the_arguments_is_not_shown(now: tuple[str, ...], then: tuple[str, ...]) -> None:
    """Who approves sees that the argument changes, and where; the text goes into Slack, PagerDuty and the audit."""
    said = differences(template(*now), template(*then))

    assert said == f"vllm.args[{len(now) - 1}] changes (hidden)"


@pytest.mark.parametrize("now", secret_args(OLD))
def test_a_secret_that_comes_or_goes_is_not_shown(now: tuple[str, ...]) -> None:
    """Arguments have no names, so one more in front moves the others: each place is hidden when either side is."""
    for other in ((), ("--max-num-seqs=64", *now), ("--max-num-seqs", "64", "serve", *now), now[:-1]):
        for said in (differences(template(*now), template(*other)), differences(template(*other), template(*now))):
            assert OLD not in said
            assert "(hidden)" in said


@pytest.mark.parametrize(
    ("now", "then", "said"),
    [
        (("--max-num-seqs=64",), ("--max-num-seqs=256",), "vllm.args[0] --max-num-seqs=64 -> --max-num-seqs=256"),
        (("--max-num-batched-tokens", "8192"), ("--max-num-batched-tokens", "2048"), "vllm.args[1] 8192 -> 2048"),
        (
            ("--max-num-batched-tokens=8192",),
            ("--max-num-batched-tokens=2048",),
            "vllm.args[0] --max-num-batched-tokens=8192 -> --max-num-batched-tokens=2048",
        ),
        (("--long-prefill-token-threshold", "1"), ("--long-prefill-token-threshold", "2"), "vllm.args[1] 1 -> 2"),
        (("--return-tokens-as-token-ids", "--a"), ("--return-tokens-as-token-ids", "--b"), "vllm.args[1] --a -> --b"),
        (("--tokenizer", "a/b"), ("--tokenizer", "a/c"), "vllm.args[1] a/b -> a/c"),
        (("--ssl-keyfile", "/a"), ("--ssl-keyfile", "/b"), "vllm.args[1] /a -> /b"),
        (("--api-key=x", "--model", "a"), ("--api-key=x", "--model", "b"), "vllm.args[2] a -> b"),
        (("--api-key", "x", "--model", "a"), ("--api-key", "x", "--model", "b"), "vllm.args[3] a -> b"),
    ],
)
def test_what_is_no_secret_is_shown(now: tuple[str, ...], then: tuple[str, ...], said: str) -> None:
    """Counts of tokens, tokenizers and paths of key files are what people decide on."""
    assert differences(template(*now), template(*then)) == said


def test_an_image_is_shown_whatever_its_name() -> None:
    """The tag of an image is what a rollback is about."""
    now, then = template(image="registry.internal/auth-token:1.2"), template(image="registry.internal/auth-token:1.3")

    assert differences(now, then) == ("vllm.image registry.internal/auth-token:1.2 -> registry.internal/auth-token:1.3")


@pytest.mark.parametrize(
    "place",
    [
        lambda value: template(env=[{"name": "REGION", "value": value}]),
        lambda value: template(command=["serve", "--token", value]),
        lambda value: template(lifecycle={"preStop": {"exec": {"command": ["bye", f"--secret={value}"]}}}),
        lambda value: template(livenessProbe={"httpGet": {"httpHeaders": [{"name": "X-Any", "value": value}]}}),
        lambda value: {"metadata": {"annotations": {"example.com/api-key": value}}},
        lambda value: {"metadata": {"annotations": {"example.com/config": f'{{"password": "{value}"}}'}}},
    ],
)
def test_other_places_of_secrets(place: Any) -> None:
    """Variables, commands of hooks and probes, headers, annotations."""
    said = differences(place(OLD), place(NEW))

    assert OLD not in said
    assert NEW not in said
    assert said.endswith("changes (hidden)")


def test_many_differences_are_counted() -> None:
    """The first six, then how many more."""
    said = differences(template(*["a"] * 9), template(*["b"] * 9))

    assert said.count("->") == 6
    assert said.endswith("; and 3 more")


def test_a_hostile_argument_takes_little_time() -> None:
    """A long argument is read as far as it goes, or not at all; no search runs away."""
    began = time.perf_counter()
    for unit in ("a", "key", "key ", "=:", "a=", '"a":', "://a", "aB"):
        differences(template(unit * (15_990 // len(unit))), template("x"))
        assert differences(template(unit * 100_000), template("x")) == "vllm.args[0] changes (hidden)"

    assert time.perf_counter() - began < 5
