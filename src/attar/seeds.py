"""Random generators without global state: each is derived from a seed and its purpose.

A generator is derived from (seed, purpose...), so that adding a draw in one place never changes the
draws of another, and a resumed run needs no stored generator state: the same purpose gives the same
numbers.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed, a pure function of `seed` and `purpose`.

    Example:
        >>> derive_seed(0, "shuffle", 1) == derive_seed(0, "shuffle", 1)
        True
        >>> derive_seed(0, "shuffle", 1) == derive_seed(0, "shuffle", 2)
        False
    """
    text = "\x1f".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A numpy generator for one purpose. For torch, seed a `torch.Generator` with `derive_seed`."""
    return np.random.default_rng(derive_seed(seed, *purpose))
