"""Checks of untrusted settings: fields that make a library fetch or run code, and implausible
sizes. Imports no torch.

transformers sets every name of a `config.json` on its config object and reads some of them while it
builds a model: which compute kernel to fetch, which weights to open, which classes to patch. So
these names are rejected first, in `config.json`, `tokenizer_config.json` and
`generation_config.json`, at any depth. Whether the sizes fit into memory is checked later
(`architecture.require_memory`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attar.errors import ModelError
from attar.escaping import shortened
from attar.untrusted import named_values

OWN_CODE = (
    "the model needs its own Python code, which attar never runs; use a model of a family that is "
    "built into transformers"
)
KERNEL = (
    "it names a compute kernel that transformers would fetch and run; remove the field, attar "
    "chooses the implementation itself"
)
PATCH = "it changes how transformers loads or patches a model; remove the field"
CODE_FIELDS = {
    **dict.fromkeys(("auto_map", "custom_pipelines", "custom_generate"), OWN_CODE),
    "trust_remote_code": OWN_CODE,
    **dict.fromkeys(("attn_implementation", "_attn_implementation"), KERNEL),
    **dict.fromkeys(("experts_implementation", "_experts_implementation"), KERNEL),
    **dict.fromkeys(("use_kernels", "kernel_config", "allow_all_kernels"), KERNEL),
    **dict.fromkeys(("fusion_config", "distributed_config", "transformers_weights"), PATCH),
    "quantization_config": "the weights are already quantized; start from the float model",
}
"""Field → why it is rejected. transformers 5.23: modeling_utils.py (`from_pretrained`,
`_check_and_adjust_attn_implementation`), generation/utils.py, dynamic_module_utils.py."""
BUILT_IN = ("eager", "sdpa")
"""Attention implementations built into every transformers version, for which nothing is fetched."""
MAX_SHOWN = 200
"""Maximum number of characters of a value in a message."""
MAX_BLOCKS = 1000
"""The deepest published language models have fewer than 200."""
MAX_SIZE = 2**31 - 1
"""Limit for any width or count: the largest 32-bit id or index."""
MAX_LABELS = 100_000
"""transformers first creates a name for each label."""
PART_COUNT = re.compile(r"layer|block|group|expert|depth|stage|repeat")
"""Pattern for field names that may count parts which are built one by one."""
BLOCK_FIELDS = (
    *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers"),
    *("encoder_layers", "decoder_layers"),
)
SIZE_FIELDS = (
    *("vocab_size", "hidden_size", "d_model", "n_embd", "dim", "embedding_size"),
    *("max_position_embeddings", "n_positions"),
    *("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "n_inner", "hidden_dim"),
    *("num_attention_heads", "n_head", "n_heads", "num_heads"),
    *("num_key_value_heads", "d_kv", "head_dim"),
    *("encoder_attention_heads", "decoder_attention_heads", "relative_attention_num_buckets"),
)
"""Field names used by the families in `families.py`."""


def refuse_code_fields(settings: Mapping[str, Any], where: str | Path) -> None:
    """Raise ModelError if a setting would make a library fetch or run code."""
    for name, value in named_values(settings):
        reason = CODE_FIELDS.get(name)
        harmless = reason is KERNEL and value in BUILT_IN
        if reason and value and not harmless:
            shown = shortened(json.dumps(value), MAX_SHOWN)
            raise ModelError(f"{where} has {name} {shown}: {reason}")


def check_sizes(config: Mapping[str, Any], where: str | Path, *, is_known: bool = True) -> None:
    """Raise ModelError if a size is implausible, before anything is built with it.

    Args:
        is_known: whether the family has a row; for others, every field that looks like a count of
            parts is checked.
    """
    limits = (
        dict.fromkeys(BLOCK_FIELDS, MAX_BLOCKS)
        | dict.fromkeys(SIZE_FIELDS, MAX_SIZE)
        | {"num_labels": MAX_LABELS, "_num_labels": MAX_LABELS}
    )
    if not is_known:
        parts = (n for n in config if PART_COUNT.search(n) and not n.endswith("_size"))
        limits |= {n: max(MAX_BLOCKS, limits.get(n, 0)) for n in parts if _is_count(config[n])}
    for name, limit in limits.items():
        value = config.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue  # absent, or of a type that transformers itself rejects
        if not 1 <= value <= limit:
            raise ModelError(
                f"{where}: {name} is {value}, it must be 1 to {limit}; correct the file, or get "
                "the model again"
            )
    names = config.get("architectures")
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if names is not None and not is_list:
        raise ModelError(
            f"{where}: architectures must be a list of class names, got {json.dumps(names):.200}; "
            "get the model again"
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
