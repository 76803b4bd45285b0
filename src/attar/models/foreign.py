"""The task of a model that was fine-tuned elsewhere: read from its Hugging Face config.

The problem: a folder that `save_pretrained` wrote has no `task.json`, and yet its `config.json`
says most of what a task is. The idea: take only what it says without doubt.

    label_names  id2label            objective  problem_type, or regression for one label
    input_names  the tokenizer       max_length the tokenizer's limit, at most the positions

Many tokenizers have no limit, which transformers writes as 1e30: then a text may fill the
positions. Where positions are relative or rotary they limit nothing either, and 512 tokens are
read. How many texts were cut is said wherever a model answers.

An encoder-decoder with a language head turns text to text. Its texts may fill all its positions,
and how it chooses words is in `generation_config.json`, or, in older folders, in `config.json`
itself; transformers counts the start token into a length, we do not.

Left out: several labels at once, and several numbers at once; both are refused. The metrics are
not known, so the data's own are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from attar.errors import ArtifactError, ModelError
from attar.models.architecture import config_of, input_names_of
from attar.models.sources.safe_files import GENERATION_FILE, read_config, read_settings
from attar.models.structure.families import FAMILIES
from attar.models.task import MAX_TOKENS, Generation, Task, says_its_task
from attar.special_tokens import TOKENIZER_FILE, takes_segments
from attar.untrusted import has_entry

MAX_LENGTH = 512
"""Tokens, where neither tokenizer nor positions limit them."""
MAX_NEW_TOKENS = 128
"""Tokens written, where nothing is said: transformers' own 20 is no summary."""


def task_of_config(folder: Path) -> Task:
    """The task of a folder with a head for classes or for text, and no `task.json`.

    Raises:
        ArtifactError: neither.
        ModelError: of a kind that attar does not know.
    """
    plain = read_config(folder)
    if not says_its_task(folder):
        raise ArtifactError(
            f"{folder} has no task.json, and its {(plain.get('architectures') or ['model'])[0]} "
            "has no classification head and none that generates text; fine-tune it with a train "
            "step first"
        )
    config: Any = config_of(plain, str(folder))
    made_for = str((plain.get("architectures") or [""])[0])
    if made_for.endswith("ForConditionalGeneration"):
        return _text_task(folder, plain, config)
    if made_for.endswith(("ForCausalLM", "LMHeadModel")):
        return _causal_task(folder, config)
    count = config.num_labels
    problem = config.problem_type or ("regression" if count == 1 else "single_label_classification")
    if problem == "multi_label_classification":
        raise ModelError(
            f"{folder} gives a text several labels at once (problem_type {problem!r}); attar knows "
            "one of several labels, and one number"
        )
    family = FAMILIES.get(config.model_type)
    positions = None if family is None else family.max_tokens(config)
    try:
        return Task(
            objective="regression" if problem == "regression" else "classification",
            label_names=tuple(str(config.id2label[i]) for i in range(count)),
            max_length=_max_length(folder, positions),
            input_names=_input_names(folder, config),
        )
    except (ValidationError, KeyError) as error:
        raise ModelError(
            f"{folder / 'config.json'} describes no task that attar knows: {count} labels "
            f"{config.id2label}, problem_type {config.problem_type!r} ({error}); correct it"
        ) from error


def _input_names(folder: Path, config: Any) -> tuple[str, ...]:
    """What transformers would feed the model: segments only where the tokenizer gives them."""
    names = input_names_of(config)
    if "token_type_ids" in names and has_entry(folder / TOKENIZER_FILE):
        return names if takes_segments(folder) else names[:2]
    return names


def _text_task(folder: Path, plain: Mapping[str, Any], config: Any) -> Task:
    """The task of an encoder-decoder that generates text."""
    family = FAMILIES.get(config.model_type)
    positions = None if family is None else family.max_tokens(config)
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
            objective="text_to_text",
            max_length=_max_length(folder, positions),
            input_names=input_names_of(config),
            max_target_length=generation.max_new_tokens + 1,
            generation=generation,
        )
    except ValidationError as error:
        raise ModelError(
            f"{folder} chooses its words in a way that attar does not know ({error}); write what "
            "is meant into a task.json"
        ) from error


def _causal_task(folder: Path, config: Any) -> Task:
    """The task of a language model."""
    family = FAMILIES.get(config.model_type)
    positions = None if family is None else family.max_tokens(config)
    return Task(
        objective="causal_lm",
        # running text is read in windows, so that nothing is lost where no position limits them
        max_length=min(_max_length(folder, positions), positions or MAX_LENGTH),
        input_names=input_names_of(config),
    )


def _max_length(folder: Path, positions: int | None) -> int:
    """Tokens after which texts are cut; the rule is in this module's docstring."""
    file = folder / "tokenizer_config.json"
    said = read_settings(file).get("model_max_length") if has_entry(file) else None
    limits = [] if positions is None else [positions]
    if isinstance(said, int | float) and 1 < said <= MAX_TOKENS:
        limits.append(int(said))
    return min(limits, default=MAX_LENGTH)
