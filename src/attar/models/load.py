"""Load a model folder in float32 and eval mode, or raise an error that states the problem.

The files are checked first (`safe_files`), and their tensors are passed to transformers as a
dictionary, so nothing else in the folder (an adapter, a pickle, a Python file) is loaded. Every
weight of the architecture must be in the file with the right shape; only a head, and a pooler
before it, may be new: they are initialized from `seed` alone. A classification head trained for
other classes is matched by class names, or an error is raised (`heads`).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from attar.artifacts import disk_errors_explained, write_json
from attar.errors import ArtifactError, ModelError
from attar.models.architecture import (
    Attention,
    buildable_attention,
    building,
    class_of,
    config_of,
    input_names_of,
    prepare_,
    require_memory,
)
from attar.models.config import FromConfig, ModelReference
from attar.models.ffn_variants import type_in_file
from attar.models.foreign import says_its_task, task_of
from attar.models.heads import HEAD, SHARED_HEAD, OtherClassesError, reconciled_head, without_head
from attar.models.sources.references import resolve_model
from attar.models.sources.safe_files import (
    CONFIG_FILE,
    VOCABULARY_FILES,
    ModelFiles,
    read_model_files,
    read_settings,
)
from attar.models.sources.sentence_transformers import write_sentence_model
from attar.models.static_student import fill_table_, static_config
from attar.models.structure.families import max_tokens_of
from attar.models.surgery import changed
from attar.seeds import derive_seed
from attar.special_tokens import TOKENIZER_FILE, require_reading, vocabulary_of, write_tokenizer
from attar.step import StepContext
from attar.tasks.table import CAUSAL_LM
from attar.tasks.task import TASK_FILE, Task
from attar.untrusted import has_entry


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, with its origin and its task."""

    model: PreTrainedModel
    folder: Path
    """Folder of its tokenizer files."""
    task: Task | None
    """None: not fine-tuned for a task that attar supports."""
    notes: tuple[str, ...] = ()
    """Notes for the user about how it was loaded, to be shown with `progress.warn`."""


def load_model(
    folder: Path,
    *,
    task: Task | None = None,
    attention: Attention = "sdpa",
    seed: int = 0,
    new_head: bool = False,
) -> LoadedModel:
    """Load a model folder in float32 and eval mode.

    Args:
        task: task of its head; None: the folder's own task (`task_of`) or, without a classifier,
            the bare architecture in `config.json`.
        attention: "eager" computes probabilities that hooks can access; outputs are equal up to
            rounding.
        seed: for the weights of a new head.
        new_head: drop the checkpoint's classification head, whatever its classes; needs a task.

    Raises:
        ModelError: unknown architecture, missing or mismatched weights, or a head for other
            classes.
        ArtifactError: damaged files, or files that are not allowed.
    """
    files = read_model_files(folder)
    own_task = task is None and says_its_task(folder)
    if own_task:
        task = task_of(folder)
    config = config_of(files.config, str(folder), task, folder)
    check_length(config, task and task.max_length, str(folder))
    tensors = _read_tensors(files)
    notes: tuple[str, ...] = ()
    if new_head:
        tensors, notes = without_head(tensors, task, folder)
    elif task is not None:
        tensors, notes = reconciled_head(tensors, files.config, task, folder)
    model_class = class_of(config, str(folder), task)
    require_memory(model_class, config, str(folder))
    built_with = buildable_attention(model_class, attention)
    with quiet_transformers(), _own_randomness(seed, "new weights"), building(str(folder)):
        model, info = cast(Any, model_class).from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=torch.float32,
            attn_implementation=built_with,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    prepare_(model, attention)
    head_is_due = not new_head and (own_task or task is None or _has_head_for(task, folder))
    _check_fit(model, info, folder, head_is_due=head_is_due)
    return LoadedModel(model.eval(), folder, task, notes)


def build_model(
    reference: ModelReference,
    inputs: Mapping[str, Path],
    recipe_folder: Path,
    task: Task | None,
    seed: int,
    attention: Attention = "sdpa",
    first_look: Callable[[LoadedModel], Iterable[Mapping[str, Tensor]]] | None = None,
) -> LoadedModel:
    """The model that a recipe's reference describes: a loaded model, a part of one, or a random
    one.

    Args:
        first_look: batches of inputs for importance measurements when a model is narrowed; None:
            use the weights only.

    Raises:
        ModelError, ArtifactError, UsageError: as `resolve_model`, `load_model` and `changed`.
    """
    if isinstance(reference, FromConfig):
        return _random_model(reference, inputs, recipe_folder, task, seed, attention)
    is_whole = isinstance(reference, str)
    folder = resolve_model(reference if is_whole else reference.source, inputs, recipe_folder)
    if not is_whole and reference.static_width is not None:
        return _static_student(folder, reference.static_width, task)
    new_head = not is_whole and reference.new_head
    try:
        loaded = load_model(folder, task=task, seed=seed, attention=attention, new_head=new_head)
    except OtherClassesError as error:
        raise ModelError(
            f"{error}; to train a new head in its place, set new_head = true in the table of the "
            "model"
        ) from error
    if is_whole:
        return loaded
    batches = first_look(loaded) if first_look and reference.needs_texts else None
    return replace(loaded, model=changed(loaded.model, reference, batches, seed))


def causal_model(word: str, context: StepContext) -> LoadedModel:
    """The causal language model that a step's setting names.

    Raises:
        ModelError: it does not predict the next token; otherwise as `build_model`.
    """
    loaded = build_model(word, context.inputs, context.recipe_folder, None, context.seed)
    kind = type(loaded.model).__name__
    if not kind.endswith(CAUSAL_LM.heads):
        raise ModelError(
            f"{context.name}: {word} is a {kind}, which does not predict the next token; name a "
            "causal language model"
        )
    return loaded


def save_model(loaded: LoadedModel, folder: Path) -> None:
    """Write a model folder that `load_model` and transformers can read, including tokenizer and
    task.

    Raises:
        ResourceError: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    needed = sum(tensor.nbytes for tensor in loaded.model.parameters())
    with quiet_transformers(), disk_errors_explained(folder, needed):
        loaded.model.save_pretrained(folder)
        _name_type(folder)
    write_reader(loaded, folder)
    if loaded.task is not None and loaded.task.embedding is not None:
        write_sentence_model(folder, loaded.task, loaded.model.config)


def save_config(config: PreTrainedConfig, folder: Path) -> None:
    """Write the `config.json` of a model whose weights are written separately."""
    config.save_pretrained(folder)
    _name_type(folder)


def _name_type(folder: Path) -> None:
    """In a new `config.json`, set a model_type that transformers rejects, if the model has an FFN
    variant.
    """
    file = folder / CONFIG_FILE
    config = read_settings(file)
    if type_in_file(config) != config["model_type"]:
        write_json(file, config | {"model_type": type_in_file(config)})


def write_reader(loaded: LoadedModel, folder: Path) -> None:
    """Write a model's tokenizer files and its task.

    Raises:
        ResourceError: the disk is full.
    """
    source, task = loaded.folder, loaded.task
    with disk_errors_explained(folder):
        for name in VOCABULARY_FILES:
            if has_entry(source / name) and source.resolve() != folder.resolve():
                shutil.copyfile(source / name, folder / name)
        if has_entry(source / TOKENIZER_FILE):
            names = input_names_of(loaded.model.config) if task is None else task.input_names
            write_tokenizer(source, folder, None if task is None else task.max_length, names)
    if task is not None:
        task.write(folder)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars and load reports; what matters in them is reported
    here."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _own_randomness(seed: int, purpose: str) -> Iterator[None]:
    """Random numbers that depend only on the seed; the caller's generator is unaffected."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, purpose))
        yield


def _read_tensors(files: ModelFiles) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in files.weights:
        try:
            # copied, because loaded tensors are a map of the file and would change with it
            tensors |= {name: tensor.clone() for name, tensor in load_file(file).items()}
        except SafetensorError as error:
            raise ArtifactError(
                f"{file} is damaged ({error}; {file.stat().st_size} bytes); get it again, or run "
                "the step that made it again"
            ) from error
    return tensors


def check_length(
    config: PreTrainedConfig, max_length: int | None, who: str, *, made_for: bool = False
) -> None:
    """Raise ModelError if texts are longer than a learned table of positions, on which the model
    would fail.

    Args:
        made_for: without such a table, raise if texts are longer than those the model was made for.
    """
    longest = max_tokens_of(config)
    if longest is None and made_for:
        longest = getattr(config, "max_position_embeddings", None)
    if max_length is not None and longest is not None and max_length > longest:
        raise ModelError(
            f"{who} has {longest} positions, max_length is {max_length}; "
            f"set max_length = {longest} or less"
        )


def _check_fit(
    model: PreTrainedModel, info: Mapping[str, Any], folder: Path, *, head_is_due: bool
) -> None:
    """Raise if a checkpoint leaves weights uninitialized, or has more blocks than the config.

    Args:
        head_is_due: whether the head must be in the file too.
    """
    prefix = f"{model.base_model_prefix}."
    known = {_pattern(name, prefix) for name in model.state_dict()}

    def may_be_new(name: str) -> bool:
        is_head = bool(HEAD.match(name) or SHARED_HEAD.match(name))
        return (is_head and not head_is_due) or re.search(r"(^|\.)pooler\.", name) is not None

    wrong = [
        f"{name} has shape {tuple(found)}, the config says {tuple(expected)}"
        for name, found, expected in sorted(info["mismatched_keys"])
    ]
    wrong += [f"{name} is missing" for name in sorted(info["missing_keys"]) if not may_be_new(name)]
    wrong += [
        f"{name} does not exist in the model"
        for name in sorted(info["unexpected_keys"])
        if _pattern(name, prefix) in known
    ]
    wrong += [str(message) for message in info["error_msgs"]]
    no_head = [name for name in info["missing_keys"] if not name.startswith(prefix)]
    if no_head and model.get_output_embeddings() is not None:
        raise ModelError(
            f"{folder} has no head that predicts words ({no_head[0]} is missing), as a "
            f"{type(model).__name__} needs; start from a checkpoint that was pre-trained as one "
            "(of ELECTRA, the generator)"
        )
    if wrong:
        shown = "; ".join(wrong[:8]) + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else "")
        raise ModelError(
            f"the weights of {folder} do not fit its config.json ({type(model).__name__}), "
            f"{len(wrong)} tensors: {shown}; use config and weights of the same model"
        )


def _has_head_for(task: Task, folder: Path) -> bool:
    """Whether attar wrote the folder for a task with the same head. Under another head, such as
    that of a masked language model, a new head is initialized."""
    return has_entry(folder / TASK_FILE) and Task.read(folder).kind.heads == task.kind.heads


def _pattern(name: str, prefix: str) -> str:
    """A weight's name without block numbers. Leftovers of other heads match no known pattern."""
    return re.sub(r"\d+", "#", name.removeprefix(prefix))


def _random_model(
    reference: FromConfig,
    inputs: Mapping[str, Path],
    recipe_folder: Path,
    task: Task | None,
    seed: int,
    attention: Attention,
) -> LoadedModel:
    folder = resolve_model(reference.tokenizer, inputs, recipe_folder)
    plain = reference.plain(*vocabulary_of(folder))
    config = config_of(plain, "model.config", task, folder)
    require_reading(config.model_type, folder, "model.config")
    check_length(config, task and task.max_length, "model.config")
    model_class: Any = class_of(config, "model.config", task)
    require_memory(model_class, config, "model.config")
    with _own_randomness(seed, "random model"), building("model.config"):
        model = model_class._from_config(
            config,
            dtype=torch.float32,
            attn_implementation=buildable_attention(model_class, attention),
        )
    prepare_(model, attention)
    return LoadedModel(model.eval(), folder, task)


def _static_student(folder: Path, width: int, task: Task | None) -> LoadedModel:
    encoder = load_model(folder)
    if encoder.task is None or not encoder.task.kind.embeds:
        raise ModelError(
            f"static_width keeps what a model for sentence embedding answers to each token, and "
            f"{folder} is not one; name a step that trained one, or a folder of "
            "sentence-transformers"
        )
    plain = static_config(encoder.model.config.to_dict(), width, encoder.task.embedding)
    config = config_of(plain, str(folder), task)
    model: Any = class_of(config, str(folder), task)
    with _own_randomness(0, "a table that is filled"):
        student = model._from_config(config, dtype=torch.float32)
    fill_table_(student, encoder)
    return LoadedModel(student.eval(), folder, task)
