"""Memory that a step cannot have: a shortage the user can mend, and no bug of ours.

Python raises MemoryError; torch's allocator of the CPU raises a plain RuntimeError that only its
words tell apart, and that of an accelerator `torch.OutOfMemoryError`. Left out: the kernel's own
killing of a process, which no process sees.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager

from attar.errors import ResourceError

WORDS = ("can't allocate memory", "not enough memory")
"""What torch's allocator of the CPU says, by platform."""


@contextmanager
def memory_explained(step: str) -> Generator[None]:
    """Turn memory that ran out while `step` ran into a `ResourceError`; other errors pass."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ResourceError(
            f"memory ran out in step {step!r} ({reason}); what was published before is intact; "
            "lower batch_size, micro_batch_size or max_length, then run again (attar plan tells "
            "what each step needs)"
        ) from error


def _is_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")  # not loaded, it cannot have raised
    kinds = (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or any(words in str(error) for words in WORDS)
