"""What a term must know of two models before the first forward pass: how deep and how wide they
are, and which tokens see which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attar.errors import ModelError


@dataclass(frozen=True)
class StackShape:
    """One stack of blocks."""

    num_blocks: int
    hidden_size: int
    heads: int
    head_size: int
    kv_heads: int | None = None
    """Heads of keys and values; None: as many as of queries."""
    is_causal: bool = False
    """A token sees itself and what stands before it only."""

    @property
    def heads_of(self) -> Mapping[str, int]:
        """Heads of its queries, keys and values."""
        shared = self.heads if self.kv_heads is None else self.kv_heads
        return {"query": self.heads, "key": shared, "value": shared}


Shape = Mapping[str, StackShape]
"""Stack ("encoder", "decoder") → its shape; in the order in which a token meets them."""


@dataclass(frozen=True)
class Pair:
    """A student and the teacher it is compared with."""

    student: Shape
    teacher: Shape
    seed: int = 0
    """Where the weights of learned projections come from."""

    def stacks(self, kind: str) -> tuple[str, ...]:
        """The stacks both have.

        Args:
            kind: of the loss that asks, for the message.
        Raises:
            ModelError: one is an encoder-decoder and the other is not, or they share no stack.
        """
        if set(self.student) != set(self.teacher):
            raise ModelError(
                f"{kind}: the student has the stacks {list(self.student)}, the teacher "
                f"{list(self.teacher)}; what is inside is compared stack by stack, so use a "
                "student of the teacher's kind, or a loss on predictions such as forward_kl"
            )
        return tuple(self.student)
