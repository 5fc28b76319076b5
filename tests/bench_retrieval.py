"""
How fast runbooks are found: `python -m tests.bench_retrieval` (in `make bench`); `--gpu` for a GPU beside the CPU.

Ours nineteen times over, each with a title and text of its own (tests/bench_lint.py), are searched with the real
model. Their vectors are random and put into the cache before: embedding 1,000 runbooks takes minutes, and what is in a
vector does not change how long comparing takes. `--full` adds a million synthetic vectors (3.5 GiB of memory, ten
minutes). The exit status is 1 when a budget is missed; compare figures only within a run.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from bot.config import RunbookFolder
from bot.library import Librarian
from retrieval.chunks import chunks_of
from retrieval.documents import Document, Question
from retrieval.embedder import DIMENSIONS, MiniLmEmbedder, Vectors, with_length_one
from retrieval.index import VectorIndex, recall_of
from retrieval.ranking import RunbookSearch
from retrieval.vectors import SqliteVectors
from tests.bench import Figure, machine
from tests.bench_lint import write_runbooks

P50_BUDGET_MS, P99_BUDGET_MS, START_BUDGET_S = 25.0, 60.0, 3.0
QUESTIONS, PASSAGES, ASKED = 500, 2_000, 200
PARTS = ("queries", "embedding", "vectors")
_KEY = b"the bench's own"


def main() -> int:
    """Print the figures as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--full", action="store_true", help="a million vectors, too")
    parser.add_argument("--gpu", action="store_true", help="only the exact index, on a GPU beside the CPU")
    options = parser.parse_args()
    print(f"\n{machine()}\nretrieval\n")
    figures: list[Figure] = []
    for figure in _gpu() if options.gpu else _cpu(options.only or PARTS, full=options.full):
        print(figure.line(), flush=True)
        figures.append(figure)
    return int(any(each.is_missed for each in figures))


def _cpu(parts: Sequence[str], *, full: bool) -> Iterator[Figure]:
    if {"queries", "embedding"} & set(parts):
        with tempfile.TemporaryDirectory() as folder:
            yield from asyncio.run(_searching(Path(folder), parts))
    if "vectors" in parts:
        yield from chain.from_iterable(map(_vectors, (10_000, 100_000, 1_000_000) if full else (10_000, 100_000)))


async def _searching(folder: Path, parts: Sequence[str]) -> list[Figure]:
    books, cache = folder / "books", SqliteVectors(folder / "vectors.sqlite", _KEY)
    books.mkdir()
    write_runbooks(books)
    embedder = MiniLmEmbedder()
    await embedder.warm()  # imports, which are not counted, and the model; its second load is
    documents = [each for each in _shelf(books) if each.origin.file.startswith(str(books))]
    texts = [chunk.text for chunk in chunks_of(documents)]
    figures = []
    if "queries" in parts:
        shipped = [chunk.text for chunk in chunks_of(_shelf(None))]
        everything = list(dict.fromkeys([*texts, *shipped]))
        await asyncio.to_thread(cache.keep, embedder.model_id, everything, random_vectors(len(everything)))
        began, spent = time.perf_counter(), time.process_time()
        search = RunbookSearch(MiniLmEmbedder(), cache)
        await search.refresh(_shelf(books))
        by_words_s = time.perf_counter() - began
        await search.warm()
        took_s, spent = time.perf_counter() - began, time.process_time() - spent
        count = len(documents)
        figures += [
            Figure(what="start: 1,000 runbooks can be found by words", value=by_words_s, unit="s", n=count),
            Figure(what="start: by meaning, cache warm", value=took_s, unit="s", n=count, budget=START_BUDGET_S),
            Figure(what="  processor time", value=spent, unit="s", n=count),
            *await _queries(search, documents),
        ]
    if "embedding" in parts:
        began = time.perf_counter()
        await embedder.embed(texts[:PASSAGES])
        rate = PASSAGES / (time.perf_counter() - began)
        figures.append(Figure(what="passages embedded", value=rate, unit="/s", n=PASSAGES))
    return figures


async def _queries(search: RunbookSearch, documents: Sequence[Document]) -> list[Figure]:
    """One after the other; each is eight words of a title and twelve of a section, as an alert might say them."""
    dice = random.Random(6)
    waits, spent = [], time.process_time()
    for at in range(QUESTIONS + 10):
        document = dice.choice(documents)
        words = dice.choice(document.sections).text.split()
        text = " ".join([*document.title.split()[:8], *dice.sample(words, min(12, len(words)))])
        began = time.perf_counter()
        await search.search(Question(text=text, causes=((dice.choice(("S01", "S04", "G01")), 0.8),)))
        if at >= 10:
            waits.append((time.perf_counter() - began) * 1000)
    spent_ms = (time.process_time() - spent) * 1000 / len(waits)
    p50, p99 = (float(np.percentile(waits, share)) for share in (50, 99))
    return [
        Figure(what="query, embedding included, p50", value=p50, unit="ms", n=len(waits), budget=P50_BUDGET_MS),
        Figure(what="query, embedding included, p99", value=p99, unit="ms", n=len(waits), budget=P99_BUDGET_MS),
        Figure(what="  processor time for each", value=spent_ms, unit="ms", n=len(waits)),
    ]


def _shelf(books: Path | None) -> list[Document]:
    return Librarian([RunbookFolder(path=books)] if books else ()).shelf().documents()


def _vectors(count: int) -> Iterator[Figure]:
    """One index of clustered vectors, asked one question after the other."""
    vectors = random_vectors(count)
    began = time.perf_counter()
    index = VectorIndex(vectors)
    built_s = time.perf_counter() - began
    name = f"{count:,} vectors ({index.kind})"
    p50, p99 = _waits_ms(lambda asked: index.search(asked, 10), vectors)
    yield Figure(what=f"{name}: built", value=built_s, unit="s", n=1)
    yield Figure(what=f"{name}: recall@10", value=recall_of(index, vectors), unit="", n=64, budget=0.98, is_floor=True)
    yield Figure(what=f"{name}: p50", value=p50, unit="ms", n=ASKED)
    yield Figure(what=f"{name}: p99", value=p99, unit="ms", n=ASKED)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    yield Figure(what=f"{name}: memory of the process, at most", value=memory, unit="GiB", n=1, budget=6.0)


def _gpu() -> Iterator[Figure]:
    """Exact search of 40,000 rows, which is read whole for every question: so bytes a second say how good it is."""
    import torch

    if not torch.cuda.is_available():
        print("skipped: torch sees no GPU here")
        return
    vectors = random_vectors(40_000)
    index = VectorIndex(vectors)
    if not index.on_gpu:
        print('skipped: this build of faiss sees no GPU; make GPU=1 install, or pip install -e ".[gpu]"')
        return
    ours = index.search(vectors[:64], 10)[0]
    exact = np.sort(vectors[:64] @ vectors.T, axis=1)[:, :-11:-1]
    yield Figure(
        what="greatest difference from the CPU's cosines", value=abs(ours - exact).max(), unit="", n=640, budget=1e-4
    )
    p50, _ = _waits_ms(lambda asked: index.search(asked, 10), vectors)
    block = torch.empty(2**28, dtype=torch.float32, device="cuda")  # 1 GiB
    copied_s = min(_copied_s(block) for _ in range(10))
    bandwidth = 2 * block.nbytes / copied_s
    yield Figure(what=f"{torch.cuda.get_device_name()}: one question, p50", value=p50, unit="ms", n=ASKED)
    share = 100 * vectors.nbytes / (p50 / 1000) / bandwidth
    yield Figure(what="  share of the bandwidth of a copy", value=share, unit="%", n=ASKED)


def _copied_s(block: object) -> float:
    import torch

    torch.cuda.synchronize()
    began = time.perf_counter()
    block.clone()  # type: ignore[attr-defined]
    torch.cuda.synchronize()
    return time.perf_counter() - began


def _waits_ms(ask: Callable[[Vectors], object], vectors: Vectors) -> tuple[float, float]:
    """The median and the 99th percentile of one question, milliseconds."""
    waits = []
    for at in np.random.default_rng(7).integers(0, len(vectors), ASKED + 10):
        began = time.perf_counter()
        ask(vectors[at : at + 1])
        waits.append((time.perf_counter() - began) * 1000)
    return float(np.percentile(waits[10:], 50)), float(np.percentile(waits[10:], 99))


def random_vectors(count: int) -> Vectors:
    """Rows of length 1 in clusters of a hundred, as texts of one subject are."""
    dice = np.random.default_rng(6)
    centres = dice.standard_normal((max(1, count // 100), DIMENSIONS), np.float32)
    rows = np.empty((count, DIMENSIONS), np.float32)
    for start in range(0, count, 100_000):  # so that a million need no second copy
        part = rows[start : start + 100_000]
        part[:] = centres[dice.integers(0, len(centres), len(part))] + dice.standard_normal(part.shape, np.float32)
        part[:] = with_length_one(part)
    return rows


if __name__ == "__main__":
    sys.exit(main())
