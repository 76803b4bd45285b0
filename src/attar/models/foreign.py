"""The task of any model folder: its `task.json`, or what can be inferred unambiguously from the
config of a model that was fine-tuned elsewhere. A sentence-transformers folder defines its pooling
(`attar.models.sources.sentence_transformers`).

    label_names  id2label            objective  problem_type, or regression for one label
    input_names  the tokenizer       max_length the tokenizer's limit, at most the positions

Many tokenizers have no limit, which transformers stores as 1e30: the number of positions is then
the limit. Relative and rotary positions set no limit either, and 512 tokens are read. The number of
truncated texts is reported wherever a model is used.

An encoder-decoder with a language head generates text. Its generation settings are in
`generation_config.json` or, in older folders, in `config.json`; transformers includes the start
token in lengths, attar does not.

Models with several numbers as output are rejected. Metrics are unknown, so the data's are used;
label thresholds are 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from attar.errors import ArtifactError, ModelError
from attar.models.sources.safe_files import GENERATION_FILE, read_config, read_settings
from attar.models.sources.sentence_transformers import is_sentence_model, read_sentence_model
from attar.models.structure.families import max_tokens_of
from attar.special_tokens import TOKENIZER_FILE, takes_segments
from attar.tasks.table import KINDS, SENTENCE_EMBEDDING, TEXT_TO_TEXT, Graph, Kind
from attar.tasks.task import MAX_TOKENS, TASK_FILE, Generation, Task
from attar.untrusted import has_entry, read_json

MAX_LENGTH = 512
"""Maximum number of tokens if neither tokenizer nor positions limit them."""
MAX_NEW_TOKENS = 128
"""Maximum number of generated tokens if no file sets it: transformers' default of 20 is too low for
a summary."""


def says_its_task(folder: Path) -> bool:
    """Whether a model folder defines its task: by `task.json`, by the files of
    sentence-transformers, or by the head in its config."""
    if has_entry(folder / TASK_FILE) or is_sentence_model(folder):
        return True
    file = folder / "config.json"
    plain = read_json(file) if has_entry(file) else {}
    names = plain.get("architectures") if isinstance(plain, dict) else None
    return isinstance(names, list) and bool(names) and bool(_kinds_of_head(str(names[0])))


def task_of(folder: Path) -> Task:
    """The task of a model folder: its `task.json`, or what its config implies.

    Raises:
        ArtifactError: the file is damaged; or there is none, and the model has no head that implies
            a task.
        ModelError: the config describes no supported task.
    """
    if has_entry(folder / TASK_FILE):
        return Task.read(folder)
    from attar.models.architecture import config_of, input_names_of  # imports transformers

    plain = read_config(folder)
    if is_sentence_model(folder):
        config = config_of(plain, str(folder))
        return _embedding_task(folder, config, input_names_of(config))
    made_for = str((plain.get("architectures") or ["model"])[0])
    kinds = _kinds_of_head(made_for)
    if not kinds:
        raise ArtifactError(
            f"{folder} has no task.json, and its {made_for} has no classification head or language "
            "head; fine-tune it with a train step first"
        )
    config = config_of(plain, str(folder))
    make = _language_task if kinds[0].gold == "itself" else TASK_OF[kinds[0].graph]
    return make(folder, plain, config, input_names_of(config))


def _kinds_of_head(architecture: str) -> list[Kind]:
    """The kinds of task that have this head."""
    return [kind for kind in KINDS.values() if architecture.endswith(kind.heads)]


def _labelled_task(
    folder: Path, plain: Mapping[str, Any], config: Any, names: tuple[str, ...]
) -> Task:
    """The task of a model with a classification or regression head."""
    count = config.num_labels
    problem = config.problem_type
    kinds = _kinds_of_head(plain["architectures"][0])
    fitting = [k for k in kinds if (k.problem_type == problem if problem else k.has_width(count))]
    if not fitting:
        raise ModelError(
            f"{folder} has an output that attar does not support (problem_type "
            f"{config.problem_type!r}, {count} labels); supported are one of several labels, any "
            "of several labels, and one number"
        )
    try:
        return Task(
            objective=fitting[0].name,
            label_names=tuple(str(config.id2label[i]) for i in range(count))
            if fitting[0].allows(count)
            else (),
            max_length=_max_length(folder, max_tokens_of(config)),
            input_names=_input_names(folder, names),
            num_texts=2 if fitting[0].asks else None,
        )
    except (ValidationError, KeyError) as error:
        raise ModelError(
            f"{folder / 'config.json'} does not describe a supported task: {count} labels "
            f"{config.id2label}, problem_type {config.problem_type!r} ({error}); correct it"
        ) from error


def _embedding_task(folder: Path, config: Any, names: tuple[str, ...]) -> Task:
    """The task of a sentence-transformers model."""
    found = read_sentence_model(folder)
    positions = max_tokens_of(config)
    longest = _max_length(folder, positions)
    limits = [longest] if found.max_length is None else [found.max_length]
    return Task(
        objective=SENTENCE_EMBEDDING.name,
        max_length=min(limits if positions is None else [*limits, positions]),
        input_names=_input_names(folder, names),
        num_texts=1,
        embedding=found.embedding,
    )


def _input_names(folder: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    """The inputs that transformers would use: segment ids only if the tokenizer returns them."""
    if "token_type_ids" in names and has_entry(folder / TOKENIZER_FILE):
        return names if takes_segments(folder) else names[:2]
    return names


def _text_task(folder: Path, plain: Mapping[str, Any], config: Any, names: tuple[str, ...]) -> Task:
    """The task of an encoder-decoder that generates text."""
    file = folder / GENERATION_FILE
    said = {**plain, **(read_settings(file) if has_entry(file) else {})}
    fields = {name: said[name] for name in Generation.model_fields if said.get(name) is not None}
    for name, length in (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")):
        if name not in fields and isinstance(said.get(length), int):
            fields[name] = max(said[length] - 1, 0)
    fields.setdefault("max_new_tokens", MAX_NEW_TOKENS)
    try:
        generation = Generation.model_validate(fields)
        return Task(
            objective=TEXT_TO_TEXT.name,
            max_length=_max_length(folder, max_tokens_of(config)),
            input_names=names,
            max_target_length=generation.max_new_tokens + 1,
            generation=generation,
        )
    except ValidationError as error:
        raise ModelError(
            f"{folder} has generation settings that attar does not support ({error}); describe the "
            "task in a task.json"
        ) from error


def _language_task(
    folder: Path, plain: Mapping[str, Any], config: Any, names: tuple[str, ...]
) -> Task:
    """The task of a language model."""
    positions = max_tokens_of(config)
    return Task(
        objective=_kinds_of_head(plain["architectures"][0])[0].name,
        # running text is read in windows, so a limit truncates nothing if positions are unlimited
        max_length=min(_max_length(folder, positions), positions or MAX_LENGTH),
        input_names=names,
    )


TASK_OF: Mapping[Graph, Callable[[Path, Mapping[str, Any], Any, tuple[str, ...]], Task]] = {
    "one_pass": _labelled_task,
    "causal": _language_task,
    "encoder_decoder": _text_task,
}
"""How the model runs → function (folder, its plain config, transformers' config, the model's
inputs) → task."""


def _max_length(folder: Path, positions: int | None) -> int:
    """Number of tokens to which texts are truncated, by the rule in the module's docstring."""
    file = folder / "tokenizer_config.json"
    said = read_settings(file).get("model_max_length") if has_entry(file) else None
    limits = [] if positions is None else [positions]
    if isinstance(said, int | float) and 1 < said <= MAX_TOKENS:
        limits.append(int(said))
    return min(limits, default=MAX_LENGTH)
