"""How much faster are batched questions to a masked language model than one forward pass a word?

    python benchmarks/augmentation.py --data DATA            # DATA holds sst2/train.jsonl.gz

A random masked language model of MiniLM's size with MiniLM's tokenizer (times depend on shapes and
not on what was learned), and sentences of SST-2. Plain is what one reads in a paper: mask a word,
one forward pass, sort the vocabulary. Ours is the whole of `augment`: reading, questions, drawing
and writing the copies down. All take turns (A B C, A B C, …); a ratio is the median of the ratios
of the rounds, with min and max.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from attar.data.config import GlueData
from attar.data.load import load_data
from attar.distillation.augmentation import Augmenter
from attar.distillation.config import AugmentStep
from attar.distillation.masked_lm import MaskedLm
from attar.distillation.words import WordReader
from attar.models.config import FromConfig
from attar.models.load import LoadedModel, build_model
from attar.training.update.precision import choose_precision
from record import table, write_page

MINILM = {
    "model_type": "bert",
    "architectures": ["BertForMaskedLM"],
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
TOP, COPIES, PROBABILITY, MAX_LENGTH = 15, 20, 0.4, 128
BATCH_TOKENS = AugmentStep.model_fields["batch_tokens"].default
PLAIN, TWICE = "one forward a word", "one forward a word, the sentence read twice"
FP32, BF16 = "batched, fp32", "batched, bf16"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--sentences", type=int, default=48, help="of a batched round")
    parser.add_argument("--plain-sentences", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = GlueData(task="sst2", path=str(arguments.data.resolve()), train_rows=4096)
    texts = load_data(config, Path.cwd()).split("train").texts
    loaded = build_model(
        FromConfig(config=MINILM, tokenizer="demo:minilm-l6"), {}, Path.cwd(), None, 0
    )
    reader = WordReader(loaded.folder, MAX_LENGTH)
    times = measured(arguments, texts, loaded, reader)
    page = written(times, arguments)
    write_page("augmentation", "Batched questions to a masked language model", page)


def measured(
    arguments: argparse.Namespace,
    texts: tuple[tuple[str, ...], ...],
    loaded: LoadedModel,
    reader: WordReader,
) -> dict[str, list[float]]:
    """Way → milliseconds a word, one number a round."""
    ways: dict[str, Callable[[int], tuple[float, int]]] = {
        PLAIN: lambda i: plain(loaded, reader, rows(texts, i, arguments.plain_sentences)),
        TWICE: lambda i: plain(
            loaded, reader, rows(texts, i, arguments.plain_sentences), twice=True
        ),
        FP32: lambda i: ours(loaded, reader, rows(texts, i, arguments.sentences), bf16=False),
    }
    if not choose_precision("bf16", torch.device("cpu")).is_emulated:
        ways[BF16] = lambda i: ours(loaded, reader, rows(texts, i, arguments.sentences), bf16=True)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-1, arguments.rounds):  # round -1 warms up and is not counted
        for name, way in ways.items():
            seconds, words = way(number + 1)
            if number >= 0:
                times[name].append(1000 * seconds / words)
    return times


def rows(texts: tuple[tuple[str, ...], ...], number: int, count: int) -> list[tuple[str, ...]]:
    start = number * count % (len(texts) - count)
    return list(texts[start : start + count])


def plain(
    loaded: LoadedModel,
    reader: WordReader,
    texts: list[tuple[str, ...]],
    *,
    twice: bool = False,
) -> tuple[float, int]:
    """Seconds and words of one forward pass a word.

    Args:
        twice: the model also reads the whole sentence, behind the masked one.
    """
    read = reader.read([text for (text,) in texts])
    words, start = 0, time.perf_counter()
    with torch.inference_mode():
        for text in read:
            for word in text.words:
                if len(word.pieces) > 1:
                    continue
                ids = torch.from_numpy(text.ids)[None].clone()
                ids[0, word.position] = reader.mask_id
                if twice:
                    ids = torch.cat([ids, torch.from_numpy(text.ids)[None, 1:]], dim=1)
                scores = loaded.model(input_ids=ids).logits[0, word.position]
                torch.argsort(scores, descending=True)[:TOP].tolist()
                words += 1
    return time.perf_counter() - start, words


def ours(
    loaded: LoadedModel, reader: WordReader, texts: list[tuple[str, ...]], *, bf16: bool
) -> tuple[float, int]:
    """Seconds and words asked about of the whole augmentation."""
    tokens, fits = FITS.get(id(reader)) or FITS.setdefault(id(reader), reader.whole_words(30522))
    lm = MaskedLm(
        loaded.model,
        fits,
        mask_id=reader.mask_id,
        pad_id=reader.pad_id,
        top=TOP,
        batch_tokens=BATCH_TOKENS,
        bf16=bf16,
    )
    augmenter = Augmenter(
        reader.read, lm, tokens, seed=0, copies=COPIES, probability=PROBABILITY, top=TOP
    )
    start = time.perf_counter()
    made = augmenter.augment(texts, 0)
    return time.perf_counter() - start, made.questions


FITS: dict[int, tuple[list[str], object]] = {}
"""Which tokens are words, asked once: a step asks once too."""


def written(times: dict[str, list[float]], arguments: argparse.Namespace) -> str:
    lines = []
    for name, own in times.items():
        ratios = [a / b for a, b in zip(times[PLAIN], own, strict=True)]
        lines.append(
            (
                name,
                f"{statistics.median(own):.2f}",
                f"{statistics.median(ratios):.1f}",
                f"{min(ratios):.1f} to {max(ratios):.1f}",
                f"{COPIES * statistics.median(ratios):.0f}" if name in (FP32, BF16) else "",
            )
        )
    head = (
        *("way", "ms a word", "times faster", "min to max"),
        f"against one forward a word and copy, {COPIES} copies",
    )
    return (
        table(head, lines)
        + f"\n\n{arguments.rounds} rounds, {arguments.threads} threads, {arguments.sentences} "
        f"sentences of SST-2 a round ({arguments.plain_sentences} for the plain way), batches of "
        f"{BATCH_TOKENS} tokens. Our time holds all of it: reading, questions, drawing and writing "
        f"{COPIES} copies; words of several pieces are in it and in nobody's count. The last "
        "column is the third times the copies: TinyBERT's algorithm 1 asks anew for each copy; "
        "its published code asks once, as we do, and reads the sentence twice."
    )


if __name__ == "__main__":
    main()
