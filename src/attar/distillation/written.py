"""Compare generated texts with the original continuations: metrics, and examples to read.

Generated text is less diverse than human text, because the teacher repeats itself. So distinct-n,
and the Vendi score if an encoder is set, are computed for the generated and the original
continuations of the same prompts, with the same number of tokens each. Prompts are excluded,
because they are common to both.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from attar.artifacts import write_text
from attar.data.corpus.token_store import Corpus
from attar.data.corpus.view import CorpusView, Places
from attar.distillation.config import GenerateStep
from attar.numerics.distinct import distinct_ratio
from attar.scoring.diversity import scored_with_interval, text_embeddings
from attar.seeds import generator
from attar.step import StepContext

EXPLORED_FILE = "explored.json"
COMPARED = 2000
"""Number of texts for distinct-n: about 2 million tokens at MiniPLM's length."""
LONGEST_GRAM = 4
EXAMPLES, EXAMPLE_CHARACTERS = 8, 600
"""Number of examples, and the maximum number of characters shown of each part."""


@dataclass(frozen=True)
class ReadBeside:
    """Generated texts, with the chunks that their prompts come from."""

    originals: CorpusView
    written: Corpus
    places: Places
    """Place of the original of each generated text."""
    tokenizer: Tokenizer

    def ended(self) -> int:
        """Number of texts that ended with an end token, before the maximum length."""
        end = self.written.about["end_id"]
        return sum(int((s.ids[s.starts[1:] - 1] == end).sum()) for s in self.written.shards)

    def pairs(
        self, numbers: NDArray[np.int64]
    ) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
        """Prompt, generated continuation and original continuation of some texts.

        Args:
            numbers: of generated texts, in increasing order.
        """
        view = CorpusView(self.written)
        prompts = view.column("prompt", numbers).tolist()
        found = zip(
            view.ids(numbers), self.originals.ids(self.places[numbers]), prompts, strict=True
        )
        return [(text[:given], text[given:], whole[given:]) for text, whole, given in found]

    def decoded(self, texts: list[NDArray[np.int64]]) -> list[str]:
        return self.tokenizer.decode_batch([ids.tolist() for ids in texts])


def measured(config: GenerateStep, context: StepContext, read: ReadBeside) -> dict[str, Any]:
    """How the generated texts differ from the originals. Also writes examples for the report.

    Raises:
        AttarError: the encoder cannot be used.
    """
    order = generator(context.seed, "read").permutation(len(read.places))
    sampled = read.pairs(np.sort(order[:COMPARED]))
    same = [(new[: len(old)], old[: len(new)]) for _, new, old in sampled if len(old)]
    sides = {"written": [new for new, _ in same], "original": [old for _, old in same]}
    distinct = {
        side: {str(n): distinct_ratio(texts, n) for n in range(1, LONGEST_GRAM + 1)}
        for side, texts in sides.items()
    }
    _write_examples(context, read, np.sort(order[:EXAMPLES]))
    return {
        "ended": read.ended(),
        "distinct": {"texts": len(same), **distinct},
        "diversity": _diversity(config, context, read, order),
    }


def _diversity(
    config: GenerateStep, context: StepContext, read: ReadBeside, order: NDArray[np.int64]
) -> dict[str, Any]:
    """Vendi scores of both; empty if not requested."""
    if config.diversity is None:
        return {}
    sampled = read.pairs(np.sort(order[: config.diversity.chunks]))
    new = read.decoded([new[: len(old)] for _, new, old in sampled])
    old = read.decoded([old[: len(new)] for _, new, old in sampled])
    both = [pair for pair in zip(new, old, strict=True) if pair[0].strip() and pair[1].strip()]
    texts = [text for side in zip(*both, strict=True) for text in side]
    embeddings = text_embeddings(config.diversity, context, texts)
    halves = zip(("written", "original"), np.split(embeddings, 2), strict=True)
    return {
        "model": config.diversity.model,
        "max_length": config.diversity.max_length,
        **{side: scored_with_interval(half) for side, half in halves},
    }


def _write_examples(context: StepContext, read: ReadBeside, numbers: NDArray[np.int64]) -> None:
    sources = CorpusView(read.written).column("source", numbers)
    names, end = read.written.about["sources"], read.written.about["end_id"]
    examples: list[dict[str, Any]] = []
    for parts, source in zip(read.pairs(numbers), sources, strict=True):
        texts = dict(zip(("prompt", "written", "original"), read.decoded([*parts]), strict=True))
        examples.append(
            {
                "source": names[int(source)],
                "tokens": len(parts[1]),
                "is_ended": int(parts[1][-1]) == end,
                **{name: _beginning(text, name == "prompt") for name, text in texts.items()},
            }
        )
    content = json.dumps({"texts": examples}, ensure_ascii=False, allow_nan=False)
    write_text(context.folder / EXPLORED_FILE, content)


def _beginning(text: str, is_prompt: bool) -> dict[str, Any]:
    """The part of a text to show: its beginning, or the end of a prompt."""
    shown = text[-EXAMPLE_CHARACTERS:] if is_prompt else text[:EXAMPLE_CHARACTERS]
    return {"text": shown, "characters": len(text)}
