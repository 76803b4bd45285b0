"""One step without a recipe: the most important settings as options, and `--set` for the rest.

The parameters of a command are settings of its step, with the same names. Its return value changes
settings: None removes a setting, `run` selects another step.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from attar.cli.flags import (
    DATA_WORDS,
    MODEL_WORDS,
    CorpusFolder,
    Data,
    Debug,
    Json,
    Model,
    Out,
    Overrides,
    Quiet,
)
from attar.cli.output import conclude

Changed = Mapping[str, Any]


def one_step(verb: Callable[..., Changed]) -> Callable[..., None]:
    """Make a command, with the options of `verb` and the common ones."""

    def command(
        overrides: Overrides = None,
        out: Out = None,
        as_json: Json = False,
        quiet: Quiet = False,
        debug: Debug = False,
        **given: Any,
    ) -> None:
        from attar.recipe.one_step import run_one_step

        settings = {**given, **verb(**given)}
        run = settings.pop("run", verb.__name__)
        conclude(run_one_step(run, settings, overrides or (), out, quiet=quiet), as_json)

    own, shared = (inspect.signature(each, eval_str=True) for each in (verb, command))
    parameters = [*own.parameters.values(), *list(shared.parameters.values())[:-1]]
    keyword_only = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    command.__signature__ = inspect.Signature(keyword_only)  # pyright: ignore
    command.__annotations__ = {each.name: each.annotation for each in keyword_only}
    command.__name__, command.__doc__ = verb.__name__, verb.__doc__
    return command


ScoresFolder = Annotated[
    str | None, typer.Option(metavar="SCORES", help="The folder of a score step: runs/…/score.")
]


@one_step
def tokenize(
    data: Annotated[str, typer.Argument(metavar="DATA", show_default=False, help=DATA_WORDS)],
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A folder, hub id or demo model with the tokenizer."),
    ] = None,
    vocab_size: Annotated[
        int | None, typer.Option(help="Train a tokenizer of this size on the data.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens per chunk that a model reads.")
    ] = None,
    reserve: Annotated[
        float | None, typer.Option(help="Share of the documents to reserve for a reference.")
    ] = None,
    source_column: Annotated[
        str | None, typer.Option(help="Column with each document's source.")
    ] = None,
    max_documents: Annotated[
        int | None, typer.Option(help="Read at most this many documents.")
    ] = None,
) -> Changed:
    """Turn documents into a corpus: token chunks on disk."""
    from attar.errors import UsageError
    from attar.recipe.one_step import DATA_NAME

    if (tokenizer is None) == (vocab_size is None):
        raise UsageError(
            "a corpus needs one tokenizer: give --tokenizer, or train one with --vocab-size 4096"
        )
    return {
        "vocab_size": None,
        "tokenizer.train_on": None if vocab_size is None else DATA_NAME,
        "tokenizer.vocab_size": vocab_size,
    }


@one_step
def score(
    data: CorpusFolder,
    model: Model,
    part: Annotated[str | None, typer.Option(help="scored or reserved.")] = None,
    chunks: Annotated[int | None, typer.Option(help="Score a random sample.")] = None,
) -> Changed:
    """Compute the log-probability of every chunk of a corpus under a language model."""
    return {}


@one_step
def select(
    data: CorpusFolder,
    teacher: ScoresFolder = None,
    reference: ScoresFolder = None,
    scores: Annotated[
        str | None,
        typer.Option(
            metavar="SCORES", help="For --method proxy: the folder of the predicted scores."
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="difference_sampling, gumbel, random or proxy.")
    ] = None,
    keep: Annotated[float | None, typer.Option(help="Share of the chunks to keep.")] = None,
    trim: Annotated[
        float | None, typer.Option(help="Share of the highest scores to set aside.")
    ] = None,
    minimum_tokens: Annotated[
        int | None, typer.Option(help="Shorter chunks are set aside; 16 by default.")
    ] = None,
    near_duplicates: Annotated[
        float | None, typer.Option(help="Jaccard similarity above which a chunk is set aside.")
    ] = None,
) -> Changed:
    """Keep the most useful chunks of a corpus, by the scores of two models."""
    return {}


@one_step
def generate(
    data: CorpusFolder,
    model: Model,
    part: Annotated[str | None, typer.Option(help="scored or reserved.")] = None,
    chunks: Annotated[int | None, typer.Option(help="Continue a random sample.")] = None,
    prompt_tokens: Annotated[
        int | None, typer.Option(help="Prompt length in tokens; 128 by default.")
    ] = None,
    new_tokens: Annotated[
        int | None, typer.Option(help="Maximum number of tokens to generate; 896 by default.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0: always the most likely token.")
    ] = None,
    top_p: Annotated[float | None, typer.Option()] = None,
) -> Changed:
    """Make a corpus of texts generated by a language model, which continues chunks."""
    return {}


@one_step
def train(
    data: Data,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help=MODEL_WORDS)] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Size of a model with random weights, instead of --model: pico, nano, micro, …"
        ),
    ] = None,
    family: Annotated[
        str, typer.Option(help="For --size: llama, qwen2, qwen3, gpt2, mamba or mamba2.")
    ] = "llama",
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="For --size; default: the tokenizer of the corpus."),
    ] = None,
    part: Annotated[str | None, typer.Option(help="Of a corpus: scored or reserved.")] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Maximum number of tokens per text or chunk.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Number of tokens to train on.")] = None,
    teacher: Annotated[str | None, typer.Option(metavar="MODEL", help="Distil from it.")] = None,
    epochs: Annotated[float | None, typer.Option()] = None,
    learning_rate: Annotated[float | None, typer.Option()] = None,
    batch_size: Annotated[int | None, typer.Option()] = None,
) -> Changed:
    """Train a model on data, with or without a teacher."""
    from attar.errors import UsageError

    if (model is None) == (size is None):
        raise UsageError(
            "training needs one model: give --model, or --size nano for random weights"
        )
    random = {} if size is None else _random_model(size, family, tokenizer, data)
    return {"size": None, "family": None, "tokenizer": None, **random}


def _random_model(size: str, family: str, tokenizer: str | None, data: str) -> dict[str, str]:
    """Model settings for random weights and the tokenizer of some data."""
    from attar.errors import UsageError
    from attar.recipe.one_step import corpus_folder

    tokenizer = corpus_folder(data) if tokenizer is None else tokenizer
    if tokenizer is None:
        raise UsageError(
            f"random weights need a tokenizer, and data {data!r} is not a corpus; name a tokenizer "
            "with --tokenizer"
        )
    return {"model.size": size, "model.family": family, "model.tokenizer": tokenizer}


@one_step
def analyze(
    model: Model,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="As for other commands; the studies gamma and histograms need none.",
        ),
    ] = None,
    study: Annotated[
        str,
        typer.Option(
            help="outliers, outlier_tokens, gamma, histograms, disabling, site_cosine, "
            "leave_one_kind, gamma_cosine or clipping."
        ),
    ] = "outliers",
) -> Changed:
    """Find out why a model is hard to quantize: one study."""
    return {}


@one_step
def quantize(
    model: Model,
    data: Data,
    method: Annotated[
        str, typer.Option(help="percentile, auto, lsq_plus, …; all: attar explain quantize.")
    ] = "percentile",
    weight_bits: Annotated[int, typer.Option(min=2, max=8)] = 8,
    activation_bits: Annotated[int, typer.Option(min=2, max=8)] = 8,
    examples: Annotated[int, typer.Option(min=1, help="Calibration texts.")] = 256,
) -> Changed:
    """Quantize a fine-tuned model, calibrated on DATA."""
    return {
        "data": None,
        "examples": None,
        "calibration": {"data": data, "examples": examples},
    }


@one_step
def export(
    data: Annotated[
        str,
        typer.Option(
            metavar="DATA",
            help=(
                "With a model: texts for the parity check. Without: the corpus or selection to "
                "export, corpus:FOLDER."
            ),
        ),
    ],
    model: Annotated[str | None, typer.Option(metavar="MODEL", help=MODEL_WORDS)] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help=(
                "For a model: openvino (default), onnxruntime or safetensors; for a corpus or "
                "selection: dataset (default), jsonl or parquet."
            )
        ),
    ] = None,
) -> Changed:
    """Export a model for a CPU runtime, or a corpus as files for other trainers."""
    from attar.errors import UsageError
    from attar.recipe.one_step import data_table

    if model is None and data_table(data)["source"] != "corpus":
        raise UsageError(
            f"nothing to export: give --model, or a corpus or selection with --data; {data!r} is "
            "not the folder of a tokenize or a select step"
        )
    return {"run": "export_data"} if model is None else {"format": format or "openvino"}


@one_step
def evaluate(
    models: Annotated[
        list[str], typer.Option("--model", metavar="MODEL", help="Repeat to compare models.")
    ],
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help=f"{DATA_WORDS} Or --set tasks=[…].")
    ] = None,
) -> Changed:
    """Measure quality, speed, size and memory of models on the same data, or evaluate language
    models on zero-shot tasks."""
    return {}
