"""Rewrites a quantized model so that a plain trace of it is the graph that a runtime needs.

Modules are replaced in torch, where they have names, instead of in the exported graph. Every Linear
and embedding table becomes a module that holds int8 integers and dequantizes them in the form that
the runtime recognizes; every site gets the runtime's quantizer.

    Linear       y = x · dequantize(W_int8, scale per row)ᵀ + bias
    Embedding    y = scale[id] · W_int8[id]          only the rows read are dequantized
    site         x̂ = dequantize(quantize(x))

With fewer than 8 bits, a part of the 8-bit grid is used: the integers of a 4-bit weight are int8
values up to ±7, and a 4-bit activation is first clipped to its range, then rounded to the same
points on a u8 grid. The additive attention mask is computed once at the start (`OnePass`), because
the general mask code of transformers is traced into dozens of small operations.

See `float_sites` for the sites that stay float.
Shape letters: B texts, T tokens, O rows of a weight, I columns.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.export.float_sites import float_sites
from attar.export.moved_shortcuts import Integers
from attar.models.heads import logits_in
from attar.models.load import LoadedModel, load_model
from attar.models.simulated.packing import read_integers
from attar.models.simulated.qparams import QPARAMS_FILE, ModelQParams, SiteQParams
from attar.models.simulated.quantized import load_simulated
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.families import FAMILIES
from attar.models.structure.ports import insert_
from attar.models.structure.site_kinds import SITE_KINDS
from attar.tasks.task import Task
from attar.untrusted import has_entry

MakeWeight = Callable[[nn.Module, Tensor, Tensor], nn.Module]
"""(the float Linear or Embedding, int8 integers (O, I), float32 scales (O,)) → its replacement."""
MakeSite = Callable[[SiteQParams], nn.Module]
MoveFactors = Callable[[PreTrainedModel, Integers], None]
"""Moves the factors on residual connections of a migrated model; may change the integers."""


class OnePass(nn.Module):
    """The whole graph: int64 inputs (B, T) → logits (B, C), token logits (B, T, C), or embeddings
    (B, W).

    Args:
        embeds: whether it is an embedding model.
    """

    def __init__(self, model: PreTrainedModel, *, embeds: bool = False) -> None:
        super().__init__()
        self.model = model
        self.embeds = embeds
        has_windows = "sliding_attention" in (getattr(model.config, "layer_types", None) or ())
        self.window = model.config.sliding_window if has_windows else None
        """Number of tokens on each side within local attention."""
        self.adds_mask = FAMILIES[model.config.model_type].stacks[0].attention.is_plain
        """Whether the mask is added to the scores; DeBERTa applies the mask itself."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        if not self.adds_mask:
            return self._logits(input_ids, attention_mask, attention_mask, token_type_ids)
        mask: Any = (1.0 - attention_mask[:, None, None, :].to(torch.float32)) * LARGEST
        if self.window is not None:
            places = torch.arange(input_ids.shape[1], device=input_ids.device)
            is_far = (places[:, None] - places).abs() > self.window
            near = torch.where(is_far, torch.full_like(mask, LARGEST), mask)
            mask = {"full_attention": mask, "sliding_attention": near}
        return self._logits(input_ids, mask, attention_mask, token_type_ids)

    def _logits(
        self, input_ids: Tensor, mask: Any, real: Tensor, token_type_ids: Tensor | None
    ) -> Tensor:
        rest = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        if self.embeds:
            rest["real_tokens"] = real
        logits = logits_in(self.model(input_ids=input_ids, attention_mask=mask, **rest))
        assert logits is not None, "a model without a head is refused"
        return logits


LARGEST = torch.finfo(torch.float32).min
"""Added to the scores of padded positions, whose probabilities become exactly 0."""


def is_quantized(model_folder: Path) -> bool:
    return has_entry(model_folder / QPARAMS_FILE)


def embeds(task: Task | None) -> bool:
    return task is not None and task.kind.embeds


def float_graph(model_folder: Path) -> OnePass:
    """Prepare a float model for tracing.

    Raises:
        ModelError: not a fine-tuned encoder. Decoders also need a causal mask, which `OnePass` does
            not have.
    """
    loaded = load_model(model_folder, attention="eager")
    _require_encoder(loaded)
    return OnePass(loaded.model, embeds=embeds(loaded.task)).eval()


def _require_encoder(loaded: LoadedModel) -> None:
    """Refuse models that are not encoders."""
    stacks = anatomy_of(loaded.model).stacks
    is_encoder = len(stacks) == 1 and not stacks[0].row.is_causal
    if loaded.task is None or not is_encoder:
        raise ModelError(
            "export supports encoders fine-tuned for a task, such as bert and roberta; "
            f"{loaded.folder} holds a {type(loaded.model).__name__}"
            f"{' without task.json' if loaded.task is None else ''}; train an encoder first"
        )


def lower(
    model_folder: Path,
    make_weight: MakeWeight,
    make_site: MakeSite,
    move_factors: MoveFactors,
    runtime: str = "",
) -> OnePass:
    """Load the quantized model of a folder and replace all of its weights and sites.

    Args:
        runtime: the target runtime, which determines the sites that stay float.
    Raises:
        ArtifactError, ModelError: as `load_simulated` and `float_graph`.
    """
    loaded = load_simulated(model_folder, skip_kinds=SITE_KINDS)
    _require_encoder(loaded)
    qparams = ModelQParams.read(model_folder)
    model = loaded.model
    integers = read_integers(model_folder, qparams)
    move_factors(model, integers)
    shared = {name: integers[kept] for name, kept in qparams.tied.items() if kept in integers}
    for name, (values, scale) in (integers | shared).items():
        fqn = name.removesuffix(".weight")
        lowered = make_weight(model.get_submodule(fqn), values.to(torch.int8), scale)
        model.set_submodule(fqn, lowered)
    left = float_sites(qparams, runtime)
    chosen = [site for site in qparams.sites if site.kind not in left]
    insert_(model, {site.site: make_site(site) for site in chosen})
    return OnePass(model, embeds=embeds(loaded.task)).eval()


class IntegerEmbedding(nn.Module):
    """An int8 embedding table with one scale per row, for any runtime."""

    def __init__(self, integers: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("integers", integers)
        self.register_buffer("scale", scale[:, None].clone())

    @property
    def weight(self) -> Tensor:
        """The dequantized table, which DeBERTa reads as a whole for its relative positions."""
        return self.get_buffer("integers").to(torch.float32) * self.get_buffer("scale")

    def forward(self, ids: Tensor) -> Tensor:
        rows = nn.functional.embedding(ids, self.get_buffer("integers")).to(torch.float32)
        return rows * nn.functional.embedding(ids, self.get_buffer("scale"))


def example_inputs(input_names: tuple[str, ...]) -> dict[str, Tensor]:
    """A batch for tracing. It has several texts and an odd length, so that sizes are not confused
    with constants of the model; the second text is padded.
    """
    mask = torch.ones(2, 11, dtype=torch.int64)
    mask[1, 7:] = 0
    every = {
        "input_ids": torch.arange(2, 24).reshape(2, 11) * mask,
        "attention_mask": mask,
        "token_type_ids": torch.zeros(2, 11, dtype=torch.int64),
    }
    return {name: every[name] for name in input_names}
