"""Does memory stay flat as a corpus grows? Peak resident memory of tokenize, score and select.

    python benchmarks/corpus_memory.py [--mb 10 100 1000] [--folder FOLDER]

Sentences of made-up words are written as a .jsonl file of each size, with a byte-level tokenizer of
512 tokens learned from them and a random Llama of 260,000 parameters. Each step then runs in a
process of its own, one after the other, and says the most memory it ever held (VmHWM, which counts
the pages of files that are mapped too). Shards have 2²⁰ tokens, so that the smallest corpus has
several: a corpus of less than a shard needs less.

Scoring all of 1 GB would take an hour; in each corpus the same number of chunks is scored, drawn
from all shards, and all shards are opened. Selecting reads scores of every chunk, which are made up
for it.
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
from typing import Any

import numpy as np

from record import peak_mib, table, write_page

MB = 10**6
SHARD_TOKENS, MAX_LENGTH = 2**20, 256
SCORED_CHUNKS = 3000
STEPS = ("tokenize", "score", "select")
SYLLABLES = "ba ce di fo gu ha ki lo mu ne pa re si to vu wa xe yo zu al en ir os un".split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=float, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--folder", type=Path, help="where they are made; default: temporary")
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        name, folder = arguments.job
        print(json.dumps(run(name, Path(folder))))
        return
    rows: list[list[str]] = []
    first: dict[str, float] = {}
    for size in arguments.mb:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
            folder = Path(scratch)
            if shutil.disk_usage(folder).free < 4 * size * MB:
                raise SystemExit(f"{folder} needs {4 * size / 1000:.1f} GB free")
            make(folder, int(size * MB))
            cells = [f"{size:g}"]
            for step in STEPS:
                found = measured(step, folder)
                peak = first.setdefault(step, found["peak"])
                cells.append(f"{found['peak']:.0f} ({found['peak'] / peak:.2f} ×)")
                cells.append(f"{found['seconds']:.0f}")
                if step == "tokenize":
                    cells.insert(1, f"{found['chunks']:,}")
            rows.append(cells)
    head = ["MB of text", "chunks"]
    for step in STEPS:
        head += [f"{step}: peak MiB (beside the smallest)", "s"]
    write_page("corpus-memory", "Does memory stay flat as a corpus grows?", table(head, rows))


def measured(step: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--job", step, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def make(folder: Path, size: int) -> None:
    """Documents, a tokenizer and a model. The same ones for the same size."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoModelForCausalLM, LlamaConfig

    texts = documents(0, size)
    (folder / "texts").mkdir()
    with (folder / "texts" / "train.jsonl").open("w") as stream:
        for text in texts:
            stream.write(json.dumps({"text": text}) + "\n")
    held_out = "".join(json.dumps({"text": text}) + "\n" for text in documents(1, 10_000))
    (folder / "texts" / "validation.jsonl").write_text(held_out)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents(2, 200_000), trainer)
    (folder / "model").mkdir()
    tokenizer.save(str(folder / "model" / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"}
    (folder / "model" / "tokenizer_config.json").write_text(json.dumps(settings))
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=5,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")


def documents(seed: int, size: int) -> Any:
    """Documents of 1 to 40 sentences of words with the frequencies of a language, one at a time."""
    draw = np.random.default_rng(seed)
    words = np.array([a + b + c for a in SYLLABLES for b in SYLLABLES[:20] for c in ("", "n", "s")])
    odds = 1 / np.arange(1, len(words) + 1)
    while size > 0:
        pool = draw.choice(words, 20_000, p=odds / odds.sum()).tolist()
        while len(pool) > 1000:
            sentences = []
            for length in draw.integers(4, 20, draw.integers(1, 41)).tolist():
                sentences.append(" ".join(pool[:length]).capitalize() + ".")
                del pool[:length]
                if len(pool) < 20:
                    break
            text = " ".join(sentences)
            size -= len(text)
            yield text
            if size <= 0:
                return


def run(name: str, folder: Path) -> dict[str, Any]:
    """One step; its peak memory, and chunks of the corpus."""
    began = time.perf_counter()
    metrics = {"tokenize": tokenize, "score": score, "select": select}[name](folder)
    return {
        "peak": peak_mib(),
        "seconds": time.perf_counter() - began,
        "chunks": metrics["chunks"],
    }


def context(folder: Path, step: str, data: dict[str, Any], **inputs: Path) -> Any:
    from attar.progress import Progress
    from attar.step import StepContext

    (folder / step).mkdir()
    return StepContext(
        name=step,
        folder=folder / step,
        scratch=folder / f"{step}.scratch",
        inputs=inputs,
        data=data,
        recipe_folder=folder,
        progress=Progress(quiet=True),
    )


def corpus_step(folder: Path) -> tuple[Any, Any]:
    from attar.selection.config import TokenizeStep
    from attar.step import MadeRows

    step = TokenizeStep(
        data="texts", tokenizer="model", max_length=MAX_LENGTH, shard_tokens=SHARD_TOKENS
    )
    return step, MadeRows("", folder / "corpus", step, 0)


def tokenize(folder: Path) -> dict[str, Any]:
    from attar.data.config import FilesData
    from attar.selection import tokenize as room

    texts = FilesData(path="texts", text="text", objective="causal_lm", label_names=None)
    step, _ = corpus_step(folder)
    return room.tokenize(step, context(folder, "corpus", {"texts": texts}))


def score(folder: Path) -> dict[str, Any]:
    from attar.selection import score as room
    from attar.selection.config import ScoreStep

    step = ScoreStep(model="model", data="corpus", chunks=SCORED_CHUNKS)
    _, made = corpus_step(folder)
    return room.score(step, context(folder, "scores", {"corpus": made}))


def select(folder: Path) -> dict[str, Any]:
    from attar.data.corpus.token_store import Corpus
    from attar.selection import select as room
    from attar.selection.config import SelectStep
    from attar.selection.scores import ShardScores, score_file

    step, made = corpus_step(folder)
    draw = np.random.default_rng(0)
    for number, shard in enumerate(Corpus.open(made.folder).shards):
        for name, mean in (("teacher", -2.0), ("reference", -2.2)):
            (folder / name).mkdir(exist_ok=True)
            log_p = draw.normal(mean, 0.3, len(shard)) * shard.lengths
            ShardScores(
                row=np.arange(len(shard), dtype="<u8"),
                tokens=(shard.lengths - 1).astype("<u4"),
                digest=np.array(shard.digest),
                log_p=log_p.astype(np.float32),
            ).write(score_file(folder / name, number))
    inputs = {name: folder / name for name in ("teacher", "reference")}
    step = SelectStep(data="corpus", teacher="teacher", reference="reference", trim=0.001)
    return room.select(step, context(folder, "kept", {"corpus": made}, **inputs))


if __name__ == "__main__":
    main()
