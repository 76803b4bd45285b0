"""`qparams.json`: every grid of a quantized model, in one file that all runtimes read.

The simulated model, OpenVINO and ONNX Runtime set up their quantizers from the same numbers, so
differences between them are caused by the runtime. Activation grids are stored in full; a weight
has many scales (one per row), which are stored with its integers in `weights.safetensors`. Imports
no torch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from attar.artifacts import read_json, write_json
from attar.config import Config
from attar.errors import ArtifactError
from attar.models.structure.site_kinds import Port, Site, SiteKind, StackName

QPARAMS_FILE = "qparams.json"
WEIGHTS_FILE = "weights.safetensors"
FORMAT = 1
"""Increased whenever an older reader would misread a newer file."""


FLOAT_BITS = 32


class Bits(Config):
    """Bits of each kind of tensor, as set in the recipe: W-E-A in tables of the literature. With a
    budget, the resulting bits are in `ModelQParams.mean_bits`."""

    weight: int = Field(ge=2, le=8)
    embedding: int = Field(ge=2, le=8)
    activation: int = Field(ge=2, le=8)


class SiteQParams(Config):
    """The grid of an activation site."""

    fqn: str
    port: Port
    kind: SiteKind
    block: int | None
    stack: StackName = "encoder"
    bits: int = Field(ge=2, le=8)
    scale: float = Field(gt=0)
    zero_point: int
    quant_min: int
    quant_max: int

    @property
    def site(self) -> Site:
        """The site of this grid."""
        return Site(self.fqn, self.port, self.kind, self.block, self.stack)

    @property
    def name(self) -> str:
        return self.site.name

    @property
    def low(self) -> float:
        """The real value of the smallest integer."""
        return (self.quant_min - self.zero_point) * self.scale

    @property
    def high(self) -> float:
        """The real value of the largest integer."""
        return (self.quant_max - self.zero_point) * self.scale

    @property
    def is_symmetric(self) -> bool:
        """Whether zero is in the middle of the integers, so that a runtime can store signed bytes
        without a zero point."""
        return 2 * self.zero_point == self.quant_min + self.quant_max + 1

    @model_validator(mode="after")
    def _grid_holds_zero(self) -> SiteQParams:
        _check_range(self.name, self.bits, self.quant_min, self.quant_max)
        if not self.quant_min <= self.zero_point <= self.quant_max:
            raise ValueError(
                f"{self.name}: zero_point {self.zero_point} is not in {self.quant_min} … "
                f"{self.quant_max}"
            )
        return self


class WeightQParams(Config):
    """A quantized parameter: symmetric, with one float32 scale per index along `axis`."""

    fqn: str
    """The parameter's name, such as "bert.pooler.dense.weight"."""
    kind: Literal["embedding", "linear"]
    bits: int = Field(ge=2, le=8)
    axis: Literal[0] = 0
    shape: tuple[int, int]
    quant_min: int
    quant_max: int

    @model_validator(mode="after")
    def _range_fits(self) -> WeightQParams:
        _check_range(self.fqn, self.bits, self.quant_min, self.quant_max)
        if min(self.shape) < 1:
            raise ValueError(f"{self.fqn}: shape {self.shape} holds no values")
        return self


class ModelQParams(Config):
    """All grids of a model."""

    format: Literal[1] = FORMAT
    family: str
    method: str
    bits: Bits
    sites: tuple[SiteQParams, ...]
    weights: tuple[WeightQParams, ...]
    tied: dict[str, str] = Field(default_factory=dict)
    """Name of a tensor → the name under which its shared values are stored."""
    float_tensors: tuple[str, ...] = ()
    """Sites and weights that intentionally have no grid; any other without one is an error."""

    transformed: tuple[str, ...] = ()
    """Norms whose output is restored in the shortcuts; the factors are stored with the float
    tensors."""

    factored: tuple[str, ...] = ()
    """Activation functions followed by a factor per channel, which is stored with the float
    tensors."""

    @model_validator(mode="after")
    def _named_once(self) -> ModelQParams:
        names = [site.name for site in self.sites] + [weight.fqn for weight in self.weights]
        names += self.float_tensors
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"{', '.join(twice[:3])} named more than once")
        return self

    @property
    def mean_bits(self) -> dict[str, int | float]:
        """Resulting bits of weights, embeddings and activations. For weights: the mean over their
        values, or 32 if none has a grid. For sites with different bits: the recipe's mean, which
        weights each site by its number of values on the calibration texts.
        """
        widths = {site.bits for site in self.sites}
        sites = self.bits.activation if len(widths) > 1 else max(widths, default=FLOAT_BITS)
        linear, embedding = self._mean_of("linear"), self._mean_of("embedding")
        return {"weight": linear, "embedding": embedding, "activation": sites}

    def _mean_of(self, kind: str) -> int | float:
        found = [weight for weight in self.weights if weight.kind == kind]
        if len({weight.bits for weight in found}) <= 1:
            return found[0].bits if found else FLOAT_BITS
        counts = [math.prod(weight.shape) for weight in found]
        total = sum(w.bits * count for w, count in zip(found, counts, strict=True))
        return total / sum(counts)

    @property
    def words(self) -> str:
        """The bits in words: "8-bit weights, 8-bit embeddings and 8-bit activations"."""
        by_sort = {
            "weight": {weight.bits for weight in self.weights if weight.kind == "linear"},
            "embedding": {weight.bits for weight in self.weights if weight.kind == "embedding"},
            "activation": {site.bits for site in self.sites},
        }
        mean = self.mean_bits
        told = [_bits_in_words(sort, mean[sort], found) for sort, found in by_sort.items()]
        left = len(self.float_tensors)
        floats = f" ({left} weights and activations stay float)" if left else ""
        return f"{told[0]}, {told[1]} and {told[2]}{floats}"

    def write(self, folder: Path) -> None:
        write_json(folder / QPARAMS_FILE, self.model_dump(mode="json"))

    @classmethod
    def read(cls, folder: Path) -> ModelQParams:
        """Read the grids of the quantized model in `folder`.

        Raises:
            ArtifactError: the file is missing, damaged, of another format, or inconsistent.
        """
        file = folder / QPARAMS_FILE
        content = read_json(file)
        found = content.get("format") if isinstance(content, dict) else None
        if found != FORMAT:
            raise ArtifactError(
                f"{file} has format {found!r}, this version of attar reads format {FORMAT}; "
                "quantize the model again"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            shown = "; ".join(faults[:3]) + ("; …" if len(faults) > 3 else "")
            raise ArtifactError(
                f"{file} is damaged ({len(faults)} faults: {shown}); quantize the model again"
            ) from error


def _bits_in_words(sort: str, mean: float, widths: Collection[int]) -> str:
    if not widths:
        return f"float {sort}s"
    if len(widths) == 1:
        return f"{mean:.0f}-bit {sort}s"
    return f"{sort}s of {mean:.1f} bits on average ({min(widths)} to {max(widths)})"


def _check_range(name: str, bits: int, quant_min: int, quant_max: int) -> None:
    if not (quant_min < quant_max and math.log2(quant_max - quant_min + 1) <= bits):
        raise ValueError(f"{name}: {quant_min} … {quant_max} is not a valid range for {bits} bits")
