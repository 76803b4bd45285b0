"""Settings of text measurements that several steps share. Imports no torch."""

from __future__ import annotations

from pydantic import Field

from attar.config import Config


class Diversity(Config):
    """Measure the Vendi score of a sample of chunks."""

    model: str = "demo:minilm-l6"
    """Encoder whose mean-pooled last states are compared: a step, folder, hub id or demo model."""
    chunks: int = Field(default=2000, ge=50)
    """Number of chunks in each sample."""
    max_length: int = Field(default=256, ge=8)
    """Tokens per chunk that the encoder reads."""


def gap(context: int, stride: int) -> str | None:
    """Why windows of running text would skip tokens; None: they do not."""
    if stride <= context:
        return None
    return (
        f"stride is {stride}, above context = {context}: tokens in between would never be "
        "predicted; set stride to context or less"
    )
