"""Work that is cut into pieces, again with smaller pieces while memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from attar.errors import ran_out_of_memory

T = TypeVar("T")
MAX_REASON = 120
"""Characters of an allocator's message that are repeated."""


def halving(work: Callable[[int], T], size: int, halved: Callable[[int, str], None]) -> T:
    """`work(size)`; while memory runs out, with half the size, down to 1.

    Args:
        work: must leave nothing behind that a second attempt would see.
        halved: called with the new size and the reason before each further attempt.
    Raises:
        MemoryError, RuntimeError: memory ran out at size 1; any other error passes at once.
    """
    while True:
        try:
            return work(size)
        except (MemoryError, RuntimeError) as error:
            if size == 1 or not ran_out_of_memory(error):
                raise
            reason = (str(error) or type(error).__name__).splitlines()[0][:MAX_REASON]
        # Outside of the handler, whose traceback holds the tensors of the attempt.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        size = -(-size // 2)
        halved(size, reason)
