"""Memory that a step cannot have: a shortage the user can mend, and no bug of ours.

Left out: the kernel's own killing of a process, which no process sees.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from attar.errors import ResourceError, ran_out_of_memory


@contextmanager
def memory_explained(step: str) -> Generator[None]:
    """Turn memory that ran out while `step` ran into a `ResourceError`; other errors pass."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out_of_memory(error):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ResourceError(
            f"memory ran out in step {step!r} ({reason}); what was published before is intact; "
            "lower batch_size, micro_batch_size or max_length, then run again (attar plan tells "
            "what each step needs)"
        ) from error
