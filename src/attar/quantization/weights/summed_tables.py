"""Embedding tables that are summed: what one costs a token, the next makes good.

Every token of a text reads the same row of a table of token types, so the rounding error of that
one row stands in all tokens at once and nothing averages it out (on MiniLM-L6 at 8 bits it is half
of the error of all weights). Tables are one linear map whose input says which rows are read, so
GPTQ's thought holds: round the table with the fewest rows; let each row of the next move against
the error that its readers were left with, and round it; and so on.

    x_t = Σ_k E_k[i_k(t)]                                  the sum over the tables, token t
    e_t = Σ_{m<k} (E_m − Ê_m)[i_m(t)]                      the error that tables before k left
    Ê_k = round(E_k + c_k),   c_k[i] = (Σ_{t: i_k(t)=i} e_t + n₀·mean(e)) / (#{t: i_k(t)=i} + n₀)

A row that was never read moves by the mean error of all tokens (n₀ tokens' worth of it). A tied
table is a head's weight too and never moves: it comes first, whatever its size.

Left out: BART, whose words may be scaled on their way to the sum, and GPT-2: not measured.
Shape letters: `K` tables of a stack, `N` real tokens, `D` hidden, `V` rows of a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.site_kinds import StackName
from attar.quantization.calibration.real_tokens import RealTokens
from attar.quantization.weights.clipped import clipped
from attar.quantization.weights.nearest import QuantizedWeights, on_grid, weight_grid

PRIOR_TOKENS = 8
"""n₀, of a few tokens' weight: from 2 to 32 errors on unseen texts differ by less than they do from
task to task (lab/LOG.md)."""


@dataclass
class TableReads:
    """Which rows the real tokens of the texts seen so far read, of each stack whose tables are
    summed.
    """

    stacks: dict[str, dict[str, list[Tensor]]] = field(default_factory=dict)
    """Stack's name → table's name → rows (N,), batch by batch."""

    @contextmanager
    def watching(self, model: PreTrainedModel, real: RealTokens) -> Iterator[None]:
        """Record while `model` runs; `real` knows the batch in flight."""
        with ExitStack() as hooks:
            for stack in anatomy_of(model).stacks:
                seen = self.stacks.setdefault(stack.name, {})
                for name in stack.tables:
                    parts = seen.setdefault(f"{name}.weight", [])
                    record = _recorder(parts, real, stack.name)
                    handle = model.get_submodule(name).register_forward_pre_hook(record)
                    hooks.callback(handle.remove)
            yield

    def rows(self) -> list[dict[str, Tensor]]:
        """Of every stack with more than one table: name → (N,)."""
        return [
            {name: torch.cat(parts) for name, parts in seen.items()}
            for seen in self.stacks.values()
            if len(seen) > 1 and all(seen.values())  # a model given embeddings reads no table
        ]


def _recorder(parts: list[Tensor], real: RealTokens, stack: str):
    side: StackName = "decoder" if stack == "decoder" else "encoder"

    def record(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        texts = real.side(side)
        parts.append(args[0].expand_as(texts)[texts > 0])  # positions come as (1, T)

    return record


def errors_made_good(
    model: PreTrainedModel, weights: QuantizedWeights, reads: TableReads
) -> QuantizedWeights:
    """`weights` with every table rounded again in the light of those with fewer rows.

    Args:
        model: float; the tables that `weights` leaves in float make no error.
        weights: as a rule rounded them, tensor by tensor.
    """
    integers, scales = dict(weights.integers), dict(weights.scales)
    entries = {entry.fqn: entry for entry in weights.entries}
    state = model.state_dict()
    fixed = set(weights.tied.values())
    for rows in reads.rows():
        left: Tensor | None = None  # (N, D)
        names = [name for name in rows if name in entries]
        names.sort(key=lambda name: (name not in fixed, len(state[name])))
        for name in names:
            table, entry = state[name].to(torch.float32), entries[name]
            if left is not None and name not in fixed:
                moved = table + _owed(rows[name], left, len(table))
                grid = weight_grid(name, moved, entry.bits)
                integers[name], scales[name] = clipped(name, moved, grid)
            if name != names[-1]:
                error = (table - on_grid(entry, integers[name], scales[name]))[rows[name]]
                left = error if left is None else left.add_(error)
    return replace(weights, integers=integers, scales=scales)


def _owed(rows: Tensor, left: Tensor, num_rows: int) -> Tensor:
    """(V, D): the mean error that the readers of each row were left with."""
    total = torch.zeros(num_rows, left.shape[1]).index_add_(0, rows, left)
    count = torch.bincount(rows, minlength=num_rows)[:, None]
    return (total + PRIOR_TOKENS * left.mean(0)) / (count + PRIOR_TOKENS)
