"""How fast is a corpus scored, beside padded batches of transformers and its matrix products?

    python benchmarks/scoring.py [--chunks 96] [--rounds 5] [--model demo:smollm2-135m]

The first documents of the running Python's library are tokenized with chunks of at most 256 tokens.
In turns, in one process: the scorer of `run = "score"` (sorted by length, a budget of 4,096 tokens,
the head in chunks); batches of 16 in corpus order, padded, whole logits and their log-softmax, as
an evaluation loop on transformers has it; and the products of every Linear of the model with as
many tokens and nothing else, the floor of both. Sums are compared: the same is computed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from attar.data.config import StdlibTextData
from attar.data.corpus.token_store import Corpus, Shard
from attar.models.load import load_model
from attar.models.sources.references import resolve_model
from attar.progress import Progress
from attar.selection.config import ScoreStep, TokenizeStep
from attar.selection.score import Begun, fill_
from attar.selection.scorers import LanguageScorer
from attar.selection.tokenize import tokenize
from attar.step import StepContext
from record import table, write_page

PADDED_BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="demo:smollm2-135m")
    arguments = parser.parse_args()
    model = load_model(resolve_model(arguments.model, {}, Path()), task=None, seed=0).model.eval()
    with tempfile.TemporaryDirectory() as scratch:
        shard = _shard(Path(scratch), arguments.model, arguments.chunks)
        scorer = LanguageScorer(model)
        tokens = int(shard.lengths.sum())
        ours, padded = _ours(scorer, shard), _padded(model, shard)
        difference = float(np.abs(ours - padded).max() / np.abs(padded).max())
        jobs: dict[str, Callable[[], object]] = {
            "attar": lambda: _ours(scorer, shard),
            "padded batches": lambda: _padded(model, shard),
            "products only": lambda: _products(model, tokens),
        }
        seconds: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(arguments.rounds):
            for name, job in jobs.items():
                began = time.perf_counter()
                job()
                seconds[name].append(time.perf_counter() - began)
    rows = [
        [
            name,
            round(tokens / statistics.median(found)),
            _ratios(seconds["padded batches"], found),
            _ratios(seconds["products only"], found),
        ]
        for name, found in seconds.items()
    ]
    head = ["", "tokens/s", "speed beside padded batches", "share of products only"]
    words = (
        f"{len(shard)} chunks, {tokens} tokens, {torch.get_num_threads()} threads, "
        f"{arguments.rounds} rounds in turns; median (min … max of the rounds). The sums of the "
        f"first two differ by at most {difference:.1e} of the largest."
    )
    write_page("scoring", "How fast is a corpus scored?", f"{words}\n\n{table(head, rows)}")


def _ours(scorer: LanguageScorer, shard: Shard) -> np.ndarray:
    budget = ScoreStep(model="", data="").batch_tokens
    begun = Begun(np.full(len(shard), np.inf, np.float32))
    for _ in fill_(begun, scorer, shard, np.arange(len(shard)), budget):
        pass
    return begun.values


def _shard(scratch: Path, model: str, chunks: int) -> Shard:
    folder = scratch / "corpus"
    folder.mkdir()
    context = StepContext(
        name="corpus",
        folder=folder,
        scratch=scratch / "scratch",
        inputs={},
        data={"library": StdlibTextData()},
        recipe_folder=scratch,
        progress=Progress(quiet=True),
    )
    step = TokenizeStep(
        data="library",
        tokenizer=model,
        max_length=256,
        max_documents=8,
        shard_tokens=max(1024, chunks * 240),
    )
    tokenize(step, context)
    return Corpus.open(folder).shards[0]


@torch.inference_mode()
def _padded(model: torch.nn.Module, shard: Shard) -> np.ndarray:
    found = []
    for begin in range(0, len(shard), PADDED_BATCH):
        rows = [
            torch.from_numpy(shard.chunk(row))
            for row in range(begin, min(begin + PADDED_BATCH, len(shard)))
        ]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence(
            [torch.ones_like(row) for row in rows], batch_first=True
        )
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        log_p = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        found.append((log_p * mask[:, 1:]).sum(1))
    return torch.cat(found).numpy()


@torch.inference_mode()
def _products(model: torch.nn.Module, tokens: int) -> None:
    inputs: dict[int, torch.Tensor] = {}
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            for begin in range(0, tokens, 4096):
                size = min(4096, tokens - begin)
                wide = inputs.setdefault(module.in_features, torch.ones(4096, module.in_features))
                if module.out_features > 16_384:  # a head: as attar, some hundred at a time
                    for part in wide[:size].split(340):
                        module(part)
                else:
                    module(wide[:size])


def _ratios(others: list[float], own: list[float]) -> str:
    ratios = sorted(other / each for other, each in zip(others, own, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} … {ratios[-1]:.2f})"


if __name__ == "__main__":
    main()
