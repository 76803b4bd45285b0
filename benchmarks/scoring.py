"""How fast is a corpus scored, beside padded batches, lm-evaluation-harness and matrix products?

    python benchmarks/scoring.py [--chunks 96] [--documents 96] [--rounds 10]
                                 [--model demo:smollm2-135m | --hidden 128]

In turns, in one process, on two kinds of text:

    chunks      as `run = "tokenize"` packs them: nearly all of one length, so hardly any padding
    documents   docstrings of the modules of Python's library, at most 1,500 characters of each: as
                long as they happen to be, and each alone, as a corpus is scored without packing

- attar: the scorer of `run = "score"` (sorted by length, a budget of 4,096 tokens, no whole logits)
- padded batches: 16 texts in corpus order, padded to the longest, whole logits and log-softmax, as
  an evaluation loop on transformers has it
- lm-eval: its `loglikelihood_rolling` with a batch of 16 (of documents; it takes texts, not tokens,
  and predicts the first token too, from a prefix token that the others are given as well)
- products only: those of every Linear of the model with as many tokens, without padding, and
  nothing else: the floor of all

The sums are compared: the same is computed. `--hidden` takes a random Llama of that width with
SmolLM2's tokenizer, whose head is most of the work.
"""

from __future__ import annotations

import argparse
import ast
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import numpy as np
import torch
from numpy.typing import NDArray

from attar.data.corpus.packing import Chunk, Packer
from attar.data.corpus.sentence_ends import sentence_ends
from attar.data.corpus.token_store import Shard, ShardFiles, ShardWriter
from attar.data.corpus.tokenizing import DocumentTokenizer
from attar.data.documents import Document
from attar.data.packing import document_tokenizer
from attar.data.stdlib_areas import stdlib_sources
from attar.data.stdlib_text import stdlib_documents
from attar.models.load import load_model
from attar.models.sources.references import resolve_model
from attar.selection.score import Begun, fill_
from attar.selection.scorers import LanguageScorer
from record import table, write_page

PADDED_BATCH = 16
BUDGET = 4096
CHARACTERS = 1500
TOKENIZER = "demo:smollm2-135m"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=96)
    parser.add_argument("--documents", type=int, default=96)
    parser.add_argument("--length", type=int, default=256, help="tokens of a chunk")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--model", default=TOKENIZER)
    parser.add_argument("--hidden", type=int, help="width of a random model instead")
    arguments = parser.parse_args()
    folder = resolve_model(arguments.model, {}, Path())
    model = _random(arguments.hidden) if arguments.hidden else load_model(folder, task=None).model
    model.eval()
    harness = _harness(model, folder)
    prefix = harness.prefix_token_id if harness else document_tokenizer(folder)[1]
    texts = list(_docstrings(arguments.documents))
    sections = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, shard in (
            ("chunks", _packed(Path(scratch), folder, arguments.length, arguments.chunks)),
            ("documents", _alone(Path(scratch), folder, prefix, texts)),
        ):
            rolling = harness if name == "documents" else None
            sections.append(_section(name, model, shard, rolling, texts, arguments.rounds))
    body = "\n\n".join(sections)
    write_page("scoring", "How fast is a corpus scored?", body)


def _section(
    name: str,
    model: Any,
    shard: Shard,
    harness: Any,
    texts: Sequence[str],
    rounds: int,
) -> str:
    scorer = LanguageScorer(model)
    predicted = int(shard.lengths.sum()) - len(shard)
    jobs: dict[str, Callable[[], Any]] = {
        "attar": lambda: _ours(scorer, shard),
        "padded batches": lambda: _padded(model, shard),
    }
    if harness is not None:
        jobs["lm-eval"] = lambda: _rolling(harness, texts)
    sums = {job: run() for job, run in jobs.items()}
    jobs["products only"] = lambda: _products(model, predicted)
    largest = np.abs(sums["attar"]).max()
    differences = ", ".join(
        f"{job} {np.abs(found - sums['attar']).max() / largest:.1e}"
        for job, found in sums.items()
        if job != "attar"
    )
    seconds: dict[str, list[float]] = {job: [] for job in jobs}
    for _ in range(rounds):
        for job, run in jobs.items():
            began = time.perf_counter()
            run()
            seconds[job].append(time.perf_counter() - began)
    rows = [
        [
            job,
            round(predicted / statistics.median(found)),
            *(_ratios(seconds[other], found) for other in jobs if other != "attar"),
        ]
        for job, found in seconds.items()
    ]
    head = ["", "tokens/s", *(f"speed beside {other}" for other in jobs if other != "attar")]
    lengths = np.sort(shard.lengths)
    return (
        f"## {name}\n\n{len(shard)} of {lengths[0]} to {lengths[-1]} tokens (median "
        f"{lengths[len(lengths) // 2]}), {predicted} predicted; padding is "
        f"{_padding(shard.lengths):.0%} of what padded batches compute. {type(model).__name__} of "
        f"{sum(p.numel() for p in model.parameters()):,} parameters, {torch.get_num_threads()} "
        f"threads, {rounds} rounds in turns; median (min … max of the rounds). Sums differ from "
        f"attar's by, of the largest: {differences}.\n\n{table(head, rows)}"
    )


def _ours(scorer: LanguageScorer, shard: Shard) -> NDArray[np.float32]:
    begun = Begun(np.full(len(shard), np.inf, np.float32))
    for _ in fill_(begun, scorer, shard, np.arange(len(shard)), BUDGET):
        pass
    return begun.values


def _padding(lengths: NDArray[np.int64]) -> float:
    batches = [lengths[at : at + PADDED_BATCH] for at in range(0, len(lengths), PADDED_BATCH)]
    computed = sum(len(batch) * (batch.max() - 1) for batch in batches)
    return 1 - (lengths.sum() - len(lengths)) / computed


def _random(hidden: int) -> Any:
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=49152,
            hidden_size=hidden,
            intermediate_size=round(hidden * 8 / 3),
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=2048,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def _harness(model: Any, folder: Path) -> Any:
    """lm-evaluation-harness around the same model; None: it is not installed."""
    try:
        from lm_eval.models.huggingface import HFLM
    except ImportError:
        print("lm-eval is not installed, so it is left out (pip install 'attar[eval]')")
        return None
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=PADDED_BATCH, max_length=2048)


def _rolling(harness: Any, texts: Sequence[str]) -> NDArray[np.float64]:
    from lm_eval.api.instance import Instance

    requests = [
        Instance("loglikelihood_rolling", {}, (text,), number) for number, text in enumerate(texts)
    ]
    return np.array(harness.loglikelihood_rolling(requests, disable_tqdm=True))


def _docstrings(count: int) -> Iterator[str]:
    _, sources = stdlib_sources()
    for file in sources:
        try:
            text = ast.get_docstring(ast.parse(file.read_bytes()))
        except (SyntaxError, ValueError):
            continue
        if text and text[:CHARACTERS].strip():
            yield text[:CHARACTERS]
            count -= 1
        if not count:
            return


def _packed(scratch: Path, folder: Path, length: int, count: int) -> Shard:
    tokenizer, end = document_tokenizer(folder)
    packer = Packer(sentence_ends(tokenizer, end), length + 1)
    documents = (
        ("scored", Document(row, "", (text,))) for row, (_, text) in enumerate(stdlib_documents())
    )
    tokenized = DocumentTokenizer(tokenizer, end).tokenized(documents)
    chunks = (chunk for document in tokenized for chunk in packer.add(document))
    return _shard(ShardFiles(scratch, 0), [next(chunks) for _ in range(count)])


def _alone(scratch: Path, folder: Path, prefix: int, texts: Sequence[str]) -> Shard:
    tokenizer, _ = document_tokenizer(folder)
    encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    chunks = [
        Chunk("scored", "", row, np.array([prefix, *encoding.ids], np.int32), (text,), True)
        for row, (encoding, text) in enumerate(zip(encodings, texts, strict=True))
    ]
    return _shard(ShardFiles(scratch, 1), chunks)


def _shard(files: ShardFiles, chunks: Sequence[Chunk]) -> Shard:
    writer = ShardWriter(2**16)
    for chunk in chunks:
        writer.add(chunk, 0)
    writer.write(files)
    return Shard(files)


@torch.inference_mode()
def _padded(model: Any, shard: Shard) -> NDArray[np.float32]:
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
            for begin in range(0, tokens, BUDGET):
                size = min(BUDGET, tokens - begin)
                wide = inputs.setdefault(module.in_features, torch.ones(BUDGET, module.in_features))
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
