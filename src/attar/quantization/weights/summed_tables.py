"""Summed embedding tables: the rounding errors of one table are compensated in the next.

Every token of a text reads the same row of the token type table, so its rounding error affects all
tokens equally and does not average out (on MiniLM-L6 at 8 bits it is half of the error of all
weights). The sum of tables is a linear map of one-hot inputs, so the idea of GPTQ applies: round
the table with the fewest rows, correct each row of the next table by the mean error left at the
tokens that read it, round that table, and so on.

    x_t = Σ_k E_k[i_k(t)]                                  the sum over the tables, token t
    e_t = Σ_{m<k} (E_m − Ê_m)[i_m(t)]                      the error of the tables before k
    Ê_k = round(E_k + c_k),   c_k[i] = (Σ_{t: i_k(t)=i} e_t + n₀·mean(e)) / (#{t: i_k(t)=i} + n₀)

A row that was never read is corrected by the mean error of all tokens, which acts as a prior of n₀
tokens. A table that is tied to the head is never corrected and comes first, whatever its size.

Left out: BART, which may scale the token embeddings before the sum, and GPT-2 (not measured).
Shape letters: `K` tables of a stack, `N` real tokens, `D` hidden, `V` rows of a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attar.models.simulated.packing import on_grid
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.site_kinds import StackName
from attar.quantization.calibration.real_tokens import RealTokens
from attar.quantization.weights.clipped import clipped
from attar.quantization.weights.nearest import QuantizedWeights, weight_grid

PRIOR_TOKENS = 8
"""n₀. For values from 2 to 32, errors on unseen texts differ less than between tasks (lab/LOG.md).
"""


@dataclass
class TableReads:
    """The rows that real tokens have looked up so far, in each stack with summed embedding
    tables.
    """

    stacks: dict[str, dict[str, list[Tensor]]] = field(default_factory=dict)
    """Name of the stack → name of the table → rows (N,) per batch."""

    @contextmanager
    def watching(self, model: PreTrainedModel, real: RealTokens) -> Iterator[None]:
        """Record lookups while `model` runs; `real` has the masks of the current batch."""
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
        """Name of the table → rows (N,), for every stack with more than one table."""
        return [
            {name: torch.cat(parts) for name, parts in seen.items()}
            for seen in self.stacks.values()
            if len(seen) > 1 and all(seen.values())  # no lookups if the model is given embeddings
        ]


def _recorder(parts: list[Tensor], real: RealTokens, stack: str):
    side: StackName = "decoder" if stack == "decoder" else "encoder"

    def record(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        texts = real.side(side)
        parts.append(args[0].expand_as(texts)[texts > 0])  # position ids have shape (1, T)

    return record


def errors_made_good(
    model: PreTrainedModel, weights: QuantizedWeights, reads: TableReads
) -> QuantizedWeights:
    """Round every table of `weights` again, compensating the errors of tables with fewer rows.

    Args:
        model: the float model. Tables that `weights` leaves in float have no error.
        weights: weights rounded independently by a rule.
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
    """(V, D): the correction of each row, the mean error at the tokens that read it."""
    total = torch.zeros(num_rows, left.shape[1]).index_add_(0, rows, left)
    count = torch.bincount(rows, minlength=num_rows)[:, None]
    return (total + PRIOR_TOKENS * left.mean(0)) / (count + PRIOR_TOKENS)
