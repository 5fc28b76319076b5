"""
What the redactor catches and what it spoils, with the numbers behind it: `python -m tests.redaction_bench`.

Recall: made-up credentials of many kinds, 40 of each, in changing sentences. False positives: lines of our own
runbooks, documents, catalogues and a simulated fleet's metrics, in which no credential stands.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from bot.redact import redact
from tests.made_up_secrets import HELD_OUT, KINDS, PLACES, Kind

ROOT = Path(__file__).parents[1]
EACH = 40
SEED = 20261122
_PATTERNS = ("runbooks/*.md", "docs/**/*.md", "*.md", "lab/*.py", "diagnostics/**/*.py", "diagnostics/**/*.toml")


def missed(kinds: Mapping[str, Kind]) -> dict[str, int]:
    """Of 40 made-up credentials of each kind, how many stayed readable; only the kinds of which any did."""
    rng = random.Random(SEED)
    counts = dict.fromkeys(kinds, 0)
    for name, make in kinds.items():
        for _ in range(EACH):
            text, secret = make(rng)
            counts[name] += secret in redact(rng.choice(PLACES).format(text))
    return {name: count for name, count in counts.items() if count}


def benign_lines() -> list[str]:
    """Lines that people and programs write here every day."""
    lines = {line.strip() for pattern in _PATTERNS for file in ROOT.glob(pattern) for line in _text(file)}
    return sorted(line for line in lines | set(_exposition()) if len(line) > 10)


def _text(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


def _exposition() -> Iterator[str]:
    """As vLLM, DCGM and Kubernetes name things: pods, GPUs, images, digests."""
    rng = random.Random(SEED)

    def pick(count: int, alphabet: str) -> str:
        return "".join(rng.choices(alphabet, k=count))

    for number in range(1000):
        pod = f"chat-vllm-{pick(9, '0123456789bcdf')}-{pick(5, 'bcdfghjklmnpqrstvwxz2456789')}"
        gpu = "GPU-" + "-".join(pick(size, "0123456789abcdef") for size in (8, 4, 4, 4, 12))
        yield f'vllm:num_requests_waiting{{model_name="llama-3-70b",namespace="chat",pod="{pod}"}} {number % 40}'
        yield f'DCGM_FI_DEV_GPU_TEMP{{gpu="{number % 8}",UUID="{gpu}",Hostname="gpu-{number % 16}"}} {40 + number % 50}'
        yield f"Pulled image registry.internal/llm/vllm@sha256:{pick(64, '0123456789abcdef')} for {pod}"
        yield f"trace_id={pick(32, '0123456789abcdef')} span_id={pick(16, '0123456789abcdef')} tokens={number}"


def interval(count: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z = 1.96
    share, spread = count / of, z * z / of
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / of + spread / (4 * of)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def _print_recall(title: str, kinds: Mapping[str, Kind]) -> None:
    left = missed(kinds)
    tried = EACH * len(kinds)
    low, high = interval(tried - sum(left.values()), tried)
    print(f"{title} {1 - sum(left.values()) / tried:.2%} ({low:.2%} to {high:.2%}), {len(kinds)} kinds x {EACH}")
    for name, count in sorted(left.items()):
        print(f"  missed {count} of {EACH}: {name}")


def main() -> None:
    """Print the figures."""
    redact("")  # loads the rules
    _print_recall("recall", KINDS)
    _print_recall("recall of held-out kinds", HELD_OUT)
    lines = benign_lines()
    began = time.perf_counter()
    spoilt = [line for line in lines if redact(line) != line]
    each_us = (time.perf_counter() - began) / len(lines) * 1e6
    low, high = interval(len(spoilt), len(lines))
    print(f"false positives {len(spoilt) / len(lines):.2%} ({low:.2%} to {high:.2%}), {len(lines)} lines")
    for line in spoilt:
        print(f"  spoilt: {redact(line)[:160]}")
    print(f"time {each_us:.0f} us per line of {sum(map(len, lines)) / len(lines):.0f} characters on average")


if __name__ == "__main__":
    main()
