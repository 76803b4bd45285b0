"""Convert the contents of a `config.json` to a transformers config and class.

Only classes built into transformers are used: the config by `model_type`, a task's model in the
tables of heads, and a bare architecture by the name of its class.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_MAPPING,
    PreTrainedModel,
)
from transformers import PreTrainedConfig as ModelConfig
from transformers.initialization import no_init_weights
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from attar.errors import AttarError, ModelError, ResourceError, did_you_mean, ran_out_of_memory
from attar.models.config import STATIC_TYPE
from attar.models.embedder import embedder_class
from attar.models.families.static import StaticConfig, StaticModel
from attar.models.ffn_variants import settings_in, type_in_memory
from attar.models.sources.config_checks import check_sizes, refuse_code_fields
from attar.models.structure.chains import variant_class, variant_of
from attar.models.structure.families import FAMILIES
from attar.special_tokens import TOKENIZER_FILE, open_tokenizer, padding_id, require_rows
from attar.tasks.table import CAUSAL_LM, TEXT_TO_TEXT
from attar.tasks.task import Task
from attar.untrusted import MIB, has_entry
from attar.usable_memory import usable_memory_mib

FLOAT_BYTES = 4
Attention = Literal["sdpa", "eager"]


def input_names_of(config: ModelConfig) -> tuple[str, ...]:
    """The inputs that a model takes from a text. Segment ids are included only if it has more than
    one segment type.
    """
    names = ("input_ids", "attention_mask")
    return (*names, "token_type_ids") if (getattr(config, "type_vocab_size", 0) or 0) > 1 else names


def config_of(
    plain: Mapping[str, Any],
    where: str,
    task: Task | None = None,
    tokenizer_folder: Path | None = None,
) -> ModelConfig:
    """A transformers config from the contents of a `config.json`, with the head for `task`.

    Args:
        tokenizer_folder: its tokens must have embeddings, and a model with a task gets its padding
            token; None: no text will be read.

    Raises:
        ModelError: the model_type does not read text, or a field is invalid or not allowed.
    """
    model_type = type_in_memory(str(plain.get("model_type")))
    if model_type not in FAMILIES and not _reads_text(model_type):
        near = did_you_mean(model_type, sorted(FAMILIES))
        raise ModelError(
            f"{where}: models of type {model_type!r} are not supported{near}; supported: "
            f"{', '.join(FAMILIES)}, and, for training and evaluation only, other text models of "
            "transformers"
        )
    refuse_code_fields(plain, where)
    check_sizes(plain, where, is_known=model_type in FAMILIES)
    config_class: Any = StaticConfig if model_type == STATIC_TYPE else CONFIG_MAPPING[model_type]
    _refuse_methods(plain, config_class, where)
    fields = {name: value for name, value in plain.items() if name not in ("dtype", "torch_dtype")}
    fields["model_type"] = model_type
    settings_in(plain, where)
    if task is not None and not (task.has_language_head or task.kind.embeds):
        fields = _with_head(fields, task)
    try:
        # infinity, which JSON cannot represent, is stored as {"__float__": "Infinity"}
        config = config_class.from_dict(config_class._decode_special_floats(fields))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{where}: not a config of model_type {model_type!r}: {reason}") from error
    if tokenizer_folder is not None and has_entry(tokenizer_folder / TOKENIZER_FILE):
        require_rows(open_tokenizer(tokenizer_folder), config.to_dict(), where)
    if task is not None:
        config.pad_token_id = _pad_id(config, where, tokenizer_folder)
    _require_pad_row(config, where)
    return config


def _reads_text(model_type: str) -> bool:
    """Whether transformers has a text-only model of this type, for classification or text
    generation.
    """
    names = (
        *(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )
    has_head = any(model_type in heads for heads in names) and model_type in CONFIG_MAPPING
    return has_head and not CONFIG_MAPPING[model_type].sub_configs


def _require_pad_row(config: ModelConfig, where: str) -> None:
    pad_id, rows = (getattr(config, name, None) for name in ("pad_token_id", "vocab_size"))
    if isinstance(pad_id, int) and isinstance(rows, int) and pad_id >= rows:
        raise ModelError(
            f"{where}: pad_token_id is {pad_id}, the model has {rows} embeddings (ids 0 to "
            f"{rows - 1}); set a padding token below {rows} in config.json and "
            "tokenizer_config.json, such as the end token"
        )


def _refuse_methods(plain: Mapping[str, Any], config_class: Any, where: str) -> None:
    """Raise if a field would hide a method: transformers sets every field as an attribute of its
    config.
    """
    for name in plain:
        hidden = getattr(config_class, name, None)
        if name.startswith("__") or callable(hidden) or name in ("attribute_map", "sub_configs"):
            raise ModelError(
                f"{where} has a field {name!r}, which overrides code of transformers; remove the "
                "field"
            )


@contextmanager
def building(where: str) -> Generator[None]:
    """Convert errors of transformers while it builds a model from an untrusted config to
    `ModelError`, and a lack of memory to `ResourceError`.
    """
    try:
        yield
    except AttarError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
        if ran_out_of_memory(error):
            raise ResourceError(
                f"{where}: not enough memory for the model that config.json describes ({reason})"
            ) from error
        raise ModelError(
            f"{where}: config.json describes a model that transformers {transformers.__version__} "
            f"cannot build ({reason}); correct it, or get the model again"
        ) from error


def require_memory(model_class: Any, config: ModelConfig, where: str) -> None:
    """Raise if the weights alone are larger than the available memory.

    Raises:
        ResourceError: states both sizes.
        ModelError: transformers cannot build the model.
    """
    with building(where), torch.device("meta"), no_init_weights():
        try:
            model = model_class(copy.deepcopy(config))
            needed = sum(math.prod(p.shape) for p in model.parameters()) * FLOAT_BYTES
        except RuntimeError as error:
            if "overflow" not in str(error):  # the number of bytes overflows 64 bits
                raise
            needed = 2**63
    usable_mib = usable_memory_mib()
    if needed / MIB > usable_mib:
        raise ResourceError(
            f"{where}: the weights that config.json describes take {needed / MIB:,.0f} MiB as "
            f"float32, {usable_mib:,.0f} MiB of memory are available; correct config.json if its "
            "sizes are wrong, or use a smaller model"
        )


def buildable_attention(model_class: Any, attention: Attention) -> Attention:
    """The attention implementation to build the model with: some classes support only "eager"."""
    return attention if model_class._supports_sdpa else "eager"


def prepare_(model: PreTrainedModel, attention: Attention) -> None:
    """Apply the changes that the row of a new model's family defines."""
    family = FAMILIES.get(model.config.model_type)
    if family is not None and family.prepare_ is not None:
        family.prepare_(model, attention)


def _with_head(fields: Mapping[str, Any], task: Task) -> dict[str, Any]:
    names = task.label_names or task.kind.outputs
    without = ("num_labels", "problem_type", "architectures", "_num_labels")
    return {n: v for n, v in fields.items() if n not in without} | {
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
        "problem_type": task.kind.problem_type,
    }


def _pad_id(config: ModelConfig, where: str, tokenizer_folder: Path | None) -> int:
    """The padding token id. Decoders classify at the last token that is not padding, so theirs must
    be the id that texts are padded with. Others keep the config's: RoBERTa's position ids start
    from it.
    """
    own = getattr(config, "pad_token_id", None)
    if own is not None and not _reads_forwards(config):
        return own
    if tokenizer_folder is not None and has_entry(tokenizer_folder / TOKENIZER_FILE):
        found = padding_id(tokenizer_folder, open_tokenizer(tokenizer_folder))
        own = own if found is None else found
    if own is not None:
        return own
    eos = getattr(config, "eos_token_id", None)
    first = eos[0] if isinstance(eos, list) and eos else eos
    return first if isinstance(first, int) else 0


def _reads_forwards(config: ModelConfig) -> bool:
    """Whether the model is a decoder only: made for the next token and never for a masked one."""
    kind = type(config)
    is_causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING and kind not in MODEL_FOR_MASKED_LM_MAPPING
    return is_causal and not config.is_encoder_decoder


def require_causal(config: ModelConfig, where: str) -> None:
    """Raise ModelError for a model that attends to later tokens, and so cannot predict the next
    one.
    """
    rows = {name: row.stacks for name, row in FAMILIES.items()}
    causal = [name for name, stacks in rows.items() if len(stacks) == 1 and stacks[0].is_causal]
    if config.model_type in causal if config.model_type in rows else _reads_forwards(config):
        return
    which = "has an encoder that reads" if config.is_encoder_decoder else "reads"
    raise ModelError(
        f"{where}: model_type {config.model_type!r} {which} in both directions, so it cannot "
        f"predict the next token; use one of {', '.join(causal)}"
    )


def class_of(config: ModelConfig, where: str, task: Task | None = None) -> type[PreTrainedModel]:
    """The class to build: with a task, the one with its head; without one, the one in
    `architectures`, or the bare model.

    Raises:
        ModelError: transformers has no such class.
    """
    is_bare = task is None
    if task is not None:
        kind = task.kind
        if task.label_words:
            kind = TEXT_TO_TEXT if config.is_encoder_decoder else CAUSAL_LM
        if kind.graph == "causal":
            require_causal(config, where)
        found = getattr(transformers, kind.classes).get(type(config), None)
        is_bare = not kind.heads
        head = f"class with a head {kind.heads[0]}" if kind.heads else "bare model"
        what = f"{head} for model_type {config.model_type!r}"
    elif config.architectures:
        found = getattr(transformers, config.architectures[0], None)
        what = f"architecture {config.architectures[0]!r}"
    else:
        found = MODEL_MAPPING.get(type(config), None)
        what = f"bare model for model_type {config.model_type!r}"
    if isinstance(config, StaticConfig) and is_bare:
        found = StaticModel
    if (
        not (isinstance(found, type) and issubclass(found, PreTrainedModel))
        or not isinstance(config, found.config_class or ())
        # BART's class for masked words generates whole texts
        or (task is not None and task.kind.hides and not found.__name__.endswith(task.kind.heads))
    ):
        raise ModelError(
            f"{where}: transformers {transformers.__version__} has no {what}; use another model"
        )
    if task is not None and task.embedding is not None:
        if (task.embedding.width or 0) > config.hidden_size:
            raise ModelError(
                f"{where}: embedding has width = {task.embedding.width}, and the model's hidden "
                f"size is {config.hidden_size}; lower it, or remove it for full vectors"
            )
        # pyright does not see the hash of a frozen config
        found = embedder_class(found, task.embedding)  # pyright: ignore[reportArgumentType]
    return found if variant_of(config) is None else variant_class(found)
