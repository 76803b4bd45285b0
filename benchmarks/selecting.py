"""How long does a selection from very many scores take, and how much memory?

    python benchmarks/selecting.py [--chunks 1e8] [--argsort 1e7] [--folder FOLDER]

A corpus of that many chunks and two models' scores are made up on disk: everything that the step
reads is real, but a chunk has one token, and its text is the same as all others'. Then, each in a
process of its own: the whole of `run = "select"` (both score files checked against the corpus, cut,
trim, rows and rejected rows written, what the report shows); the cut alone, from a memory map of
scores; and numpy's argsort of a memory map. 1e8 chunks take 9 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from record import peak_mib, table, write_page

SHARD_CHUNKS = 2**14
SOURCES = ["books", "code", "web"]
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=float, default=1e8)
    parser.add_argument("--argsort", type=float, default=1e7)
    parser.add_argument("--folder", type=Path, help="where they are made; default: temporary")
    parser.add_argument("--job", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        name, folder, count = arguments.job
        print(json.dumps(JOBS[name](Path(folder), int(count))))
        return
    count, smaller = int(arguments.chunks), int(min(arguments.argsort, arguments.chunks))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        folder = Path(scratch)
        needed = 90 * count
        if shutil.disk_usage(folder).free < 1.1 * needed:
            raise SystemExit(f"{folder} needs {needed / 1e9:.0f} GB free; take fewer --chunks")
        make(folder, count)
        rows = [
            ["run = select", f"{count:,}", *measured("select", folder, count)],
            ["the cut alone", f"{count:,}", *measured("cut", folder, count)],
            ["the cut alone", f"{smaller:,}", *measured("cut", folder, smaller)],
            ["numpy argsort", f"{smaller:,}", *measured("argsort", folder, smaller)],
        ]
    body = table(["", "scores", "seconds", "peak MiB", "MiB before it began"], rows)
    write_page("selecting", "How long does a selection take, and how much memory?", body)


def measured(job: str, folder: Path, count: int) -> tuple[str, str, str]:
    command = [sys.executable, __file__, "--job", job, str(folder), str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return f"{found['seconds']:.1f}", f"{found['peak']:.0f}", f"{found['before']:.0f}"


def make(folder: Path, count: int) -> None:
    """The published folders of a tokenize step and of two score steps, and the scores as numpy's
    own file."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors.numpy import save_file

    from attar.data.corpus.token_store import TEXTS, Corpus, ShardFiles
    from attar.selection.scores import score_file

    for name in ("corpus", "teacher", "reference"):
        (folder / name).mkdir()
    draw, shards, texts = np.random.default_rng(0), [], dict[int, Path]()
    scores = np.lib.format.open_memmap(folder / "scores.npy", "w+", np.float32, (count,))
    for number, begin in enumerate(range(0, count, SHARD_CHUNKS)):
        size = min(SHARD_CHUNKS, count - begin)
        files = ShardFiles(folder / "corpus", number)
        digest = draw.integers(0, 2**63, size).astype("<u8")
        tensors = {
            "ids": np.zeros(size, "<u2"),
            "starts": np.arange(size + 1, dtype="<i8"),
            "source": draw.integers(0, len(SOURCES), size).astype("<u2"),
            "part": np.zeros(size, "|u1"),
            "document": np.arange(begin, begin + size, dtype="<u8"),
            "digest": digest,
        }
        save_file(tensors, files.tokens)
        if size not in texts:
            pieces = pa.array([["the text of a chunk"]] * size, TEXTS[0].type)
            ends = pa.array([True] * size)
            pq.write_table(pa.Table.from_arrays([pieces, ends], schema=TEXTS), files.texts)
            texts[size] = files.texts
        else:
            files.texts.hardlink_to(texts[size])
        shards.append({"chunks": size, "tokens": size})
        teacher = draw.normal(-2.5e3, 300, size).astype(np.float32)
        reference = (teacher - draw.normal(200, 150, size)).astype(np.float32)
        scores[begin : begin + size] = (teacher - reference) / 1023
        for name, log_p in (("teacher", teacher), ("reference", reference)):
            arrays = {
                "row": np.arange(size, dtype="<u8"),
                "tokens": np.full(size, 1023, "<u4"),
                "digest": digest,
                "log_p": log_p,
            }
            save_file(arrays, score_file(folder / name, number))
    about = {
        "format": 1,
        "data": "texts",
        "max_length": 1023,
        "end_id": 0,
        "vocabulary": 1,
        "tokenizer": "",
        "parts": ["scored", "reserved"],
        "sources": SOURCES,
        "shards": shards,
    }
    Corpus(folder / "corpus", about).write_about()


def select(folder: Path, count: int) -> dict[str, float]:
    from attar.progress import Progress
    from attar.selection.config import SelectStep, TokenizeStep
    from attar.selection.select import select as select_step
    from attar.step import MadeRows, StepContext

    (folder / "kept").mkdir()
    made = MadeRows("", folder / "corpus", TokenizeStep(data="texts", tokenizer="none"), 0)
    context = StepContext(
        name="kept",
        folder=folder / "kept",
        scratch=folder / "scratch",
        inputs={name: folder / name for name in ("teacher", "reference")},
        data={"corpus": made},
        recipe_folder=folder,
        progress=Progress(quiet=True),
    )
    step = SelectStep(
        data="corpus",
        teacher="teacher",
        reference="reference",
        trim=0.001,
        keep_by_source={"code": 0.3},
    )
    before, began = peak_mib(), time.perf_counter()
    metrics = select_step(step, context)
    assert metrics["chunks"] == count
    return {"seconds": time.perf_counter() - began, "peak": peak_mib(), "before": before}


def cut(folder: Path, count: int) -> dict[str, float]:
    from attar.numerics.selection import highest

    scores = np.load(folder / "scores.npy", mmap_mode="r")[:count]
    before, began = peak_mib(), time.perf_counter()
    kept = highest(
        *(count, lambda part: scores[part], lambda part: np.ones(part.stop - part.start, bool)),
        count // 2,
    )
    assert sum(map(len, kept)) == count // 2
    return {"seconds": time.perf_counter() - began, "peak": peak_mib(), "before": before}


def argsort(folder: Path, count: int) -> dict[str, float]:
    scores = np.load(folder / "scores.npy", mmap_mode="r")[:count]
    before, began = peak_mib(), time.perf_counter()
    kept = np.sort(np.argsort(-scores, kind="stable")[: count // 2])
    assert len(kept) == count // 2
    return {"seconds": time.perf_counter() - began, "peak": peak_mib(), "before": before}


JOBS = {"select": select, "cut": cut, "argsort": argsort}


if __name__ == "__main__":
    main()
