"""How fast is a corpus made, beside the tokenizer library alone?

    python benchmarks/tokenizing.py [--mib 64] [--rounds 10] [--tokenizer demo:smollm2-135m]
    python benchmarks/tokenizing.py --profile       # where the time goes, and nothing is written

The same documents (the running Python's library, again and again until there are enough) with the
same threads, in turns: the whole of `run = "tokenize"` from a .jsonl file to shards on disk, texts
and digests included; the library's `encode_batch` of the texts in memory, 256 at a time; and its
`encode_batch_fast`, which leaves out where each token came from. The last one is the floor. The
step opens its tokenizer each time, about a second, so a short run says little.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

from attar.data.config import FilesData
from attar.data.packing import document_tokenizer
from attar.data.stdlib_text import stdlib_documents
from attar.models.sources.references import resolve_model
from attar.progress import Progress
from attar.selection.config import TokenizeStep
from attar.selection.tokenize import tokenize
from attar.step import StepContext
from record import table, write_page

MIB = 2**20
AT_ONCE = 256
"""Documents handed to the library together."""
SHARD_TOKENS = 2**20
"""So that shards are written in a short run too."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=float, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tokenizer", default="demo:smollm2-135m")
    parser.add_argument("--most", type=int, default=0, help="cut documents to so many characters")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    tokenizer, _ = document_tokenizer(resolve_model(arguments.tokenizer, {}, Path()))
    texts = list(_texts(arguments.mib * MIB, arguments.most))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        for split, content in (("train", rows), ("validation", '{"text": "held out"}\n')):
            (folder / f"{split}.jsonl").write_text(content)
        jobs: dict[str, Callable[[], int]] = {
            "attar, from the file to shards": lambda: _tokenize(folder, arguments.tokenizer),
            "encode_batch": lambda: _tokens(tokenizer.encode_batch, texts),
            "encode_batch_fast": lambda: _tokens(tokenizer.encode_batch_fast, texts),
        }
        if arguments.profile:
            profile = cProfile.Profile()
            profile.runcall(jobs["attar, from the file to shards"])
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
            return
        tokens = {name: job() for name, job in jobs.items()}
        assert len(set(tokens.values())) == 1, tokens
        seconds: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(arguments.rounds):
            for name, job in jobs.items():
                began = time.perf_counter()
                job()
                seconds[name].append(time.perf_counter() - began)
    total = next(iter(tokens.values()))
    rows_shown = [
        [
            name,
            round(total / statistics.median(found)),
            _ratios(seconds["encode_batch"], found),
            _ratios(seconds["encode_batch_fast"], found),
        ]
        for name, found in seconds.items()
    ]
    head = ["", "tokens/s", "speed beside encode_batch", "beside encode_batch_fast"]
    words = (
        f"{len(texts)} documents, {sum(map(len, texts)) / MIB:.1f} MiB, {total} tokens; "
        f"{arguments.rounds} rounds in turns; median (min … max of the rounds)."
    )
    write_page("tokenizing", "How fast is a corpus made?", f"{words}\n\n{table(head, rows_shown)}")


def _texts(size: float, most: int) -> Iterator[str]:
    for _, text in cycle(stdlib_documents()):
        yield text[: most or None]
        size -= len(text[: most or None])
        if size <= 0:
            return


def _tokenize(folder: Path, tokenizer: str) -> int:
    for place in ("corpus", "scratch"):
        shutil.rmtree(folder / place, ignore_errors=True)
    (folder / "corpus").mkdir()
    data = FilesData(path=".", text="text", objective="causal_lm", label_names=None)
    context = StepContext(
        name="corpus",
        folder=folder / "corpus",
        scratch=folder / "scratch",
        inputs={},
        data={"library": data},
        recipe_folder=folder,
        progress=Progress(quiet=True),
    )
    step = TokenizeStep(data="library", tokenizer=tokenizer, shard_tokens=SHARD_TOKENS)
    made = tokenize(step, context)
    return made["tokens"] - made["documents"]  # without the end tokens


def _tokens(encode: Callable[..., list], texts: list[str]) -> int:
    """In groups: the encodings of all texts take a hundred bytes a token."""
    return sum(
        len(encoding)
        for at in range(0, len(texts), AT_ONCE)
        for encoding in encode(texts[at : at + AT_ONCE], add_special_tokens=False)
    )


def _ratios(others: list[float], own: list[float]) -> str:
    ratios = sorted(other / each for other, each in zip(others, own, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} … {ratios[-1]:.2f})"


if __name__ == "__main__":
    main()
