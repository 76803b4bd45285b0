"""An exported model on the machine where it is used: integers in a CPU runtime, without torch.

`deploy.json` states which runtime opens which files, the inputs and outputs, and the sha256 of each
file, so that a damaged copy is detected before it is used. Besides the two runtimes, torch can run
packed integers that were not exported for a runtime.

Threads may share a `Runtime`: ONNX Runtime computes their calls in parallel, OpenVINO and torch one
after the other. A forked process must not use its parent's: the runtime's threads are not copied
into it.

Not supported: accelerators, and batching the calls of several threads.

Imports no torch except for `safetensors`. Shapes: B texts, T tokens, C classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from pydantic import Field, ValidationError

from attar.artifacts import read_json, sha256_of, write_json
from attar.config import Config
from attar.cores import usable_cores
from attar.errors import OUT_OF_MEMORY, ArtifactError, AttarError, ResourceError, UsageError
from attar.extras import training_explained
from attar.models.deployed.cpu import needs_unsigned_weights
from attar.models.deployed.graph_files import check_onnx, check_openvino
from attar.models.simulated.qparams import QPARAMS_FILE, WEIGHTS_FILE
from attar.models.sources.safe_files import CONFIG_FILE
from attar.models.structure.families import positions_of
from attar.special_tokens import DEPLOY_FILE
from attar.tasks.task import TASK_FILE, Task
from attar.tokenizer_limits import MAX_TOKENIZER_BYTES
from attar.untrusted import checked, has_entry

OPENVINO_FILE = "openvino_model.xml"
ONNX_FILE = "model.onnx"
MODEL_FILES = {
    "openvino": (OPENVINO_FILE, "openvino_model.bin"),
    "onnxruntime": (ONNX_FILE,),
    "safetensors": (WEIGHTS_FILE, QPARAMS_FILE),
}
"""Format → files of graph and weights; the first one is opened."""
FORMAT_VERSION = 1
"""Increased whenever an older reader would misread a newer folder."""

RuntimeName = Literal["openvino", "onnxruntime", "safetensors"]


class Flops(Config):
    """FLOPs of a forward pass: per_batch + B · (per_text + per_token · T + per_token_pair · T²)."""

    per_text: int = Field(ge=0)
    per_token: int = Field(ge=0)
    per_token_pair: int = Field(ge=0)
    per_batch: int = Field(default=0, ge=0)
    """For DeBERTa, which maps its table of positions once per batch."""

    def of(self, batch: int, tokens: int) -> int:
        """FLOPs; one multiply-add counts as 2.

        Example:
            >>> Flops(per_text=1, per_token=2, per_token_pair=3).of(2, 10)
            642
        """
        text = self.per_text + self.per_token * tokens + self.per_token_pair * tokens**2
        return self.per_batch + batch * text


class Deployment(Config):
    """`deploy.json`: the contents of a folder and how it was made."""

    version: Literal[1] = FORMAT_VERSION
    format: RuntimeName
    precision: Literal["int8", "int4", "float32", "simulated"]
    """Arithmetic of the products: int4 is the runtime's 4-bit kernel, which multiplies floats by
    4-bit weights; simulated is torch's float arithmetic on integer grids."""
    files: dict[str, str]
    """Name → sha256 of every file that affects predictions."""
    input_names: tuple[str, ...]
    num_params: int = Field(gt=0)
    flops: Flops
    bits: dict[str, int | float] = Field(default_factory=dict)
    """Mean bits of weights, embeddings and activations; empty for a float model."""
    weight_storage: Literal["packed", "int8", "int4_kernel"] = "int8"
    """Whether integers of fewer than 8 bits are stored at their own width."""
    float_sites: tuple[str, ...] = ()
    """Kinds of activation sites that this runtime computes in float."""
    source: str = ""
    """The step from which it was exported."""
    made_with: dict[str, str] = Field(default_factory=dict)
    cpu: dict[str, list[str]] = Field(default_factory=dict)
    """int8 instruction sets of the exporting machine."""

    def write(self, folder: Path) -> None:
        write_json(folder / DEPLOY_FILE, self.model_dump(mode="json"))

    @classmethod
    def read(cls, folder: Path) -> Deployment:
        """Read `deploy.json`.

        Raises:
            ArtifactError: the file is missing, damaged, or of another version.
        """
        file = folder / DEPLOY_FILE
        if not has_entry(file):
            what = "is not an exported model: it has no " + DEPLOY_FILE
            raise ArtifactError(
                f"{folder} {what if has_entry(folder) else 'does not exist'}; name the folder of a "
                "step that exports, such as runs/demo/deploy"
            )
        content = read_json(file)
        found = content.get("version") if isinstance(content, dict) else None
        if found != FORMAT_VERSION:
            raise ArtifactError(
                f"{file} has version {found!r}, this version of attar reads {FORMAT_VERSION}; "
                "export the model again"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the whole"
            raise ArtifactError(
                f"{file} is damaged: {place}: {first['msg']}; export the model again"
            ) from error

    def check_files(self, folder: Path) -> None:
        """Compare every file with its sha256, and reject links and FIFOs among the other files.

        Raises:
            ArtifactError: a file is missing, has changed, or is not a regular file of its folder.
        """
        absent = [name for name in MODEL_FILES[self.format] if name not in self.files]
        odd = [name for name in self.files if Path(name).name != name]
        if absent or odd:
            raise ArtifactError(
                f"{folder / DEPLOY_FILE} is damaged: it must name {MODEL_FILES[self.format]} and "
                f"only files of its own folder, got {sorted(self.files)}; export the model again"
            )
        for name, expected in self.files.items():
            file = folder / name
            if not has_entry(file):
                raise ArtifactError(f"{file} is missing; copy the whole folder, or export again")
            limit = MAX_TOKENIZER_BYTES if file.suffix == ".json" else None  # before hashing
            if sha256_of(checked(file, limit)) != expected:
                raise ArtifactError(
                    f"{file} was changed or cut after it was written ({file.stat().st_size} bytes, "
                    "its sha256 differs); copy the folder again, or export again"
                )
        for beside in folder.iterdir():
            if beside.is_symlink() or not beside.is_dir():
                checked(beside)


class Runtime(Protocol):
    """An opened model that can be used by any number of threads."""

    def logits(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Logits (B, C), logits of every token (B, T, C), or vectors (B, W), for int64 inputs (B,
        T); a new float32 array."""
        ...

    def padded(self, tokens: int) -> int:
        """The width to which a batch is padded if its longest row has `tokens` tokens; at least
        `tokens`.
        """
        ...


def open_runtime(folder: Path, threads: int | None = None) -> Runtime:
    """Open the exported model in `folder`.

    Args:
        threads: number of threads per call; None: as many as this process may use.

    Raises:
        ArtifactError: the folder is not an exported model, a file is missing or damaged, or files
            disagree about classes or lengths.
        UsageError: the runtime is not installed, or `threads` is not a positive integer.

    Warns:
        UserWarning: it was made for a CPU with exact 8-bit products, and on this CPU they saturate.
    """
    if threads is not None and (type(threads) is not int or threads < 1):
        raise UsageError(f"threads must be a whole number of at least 1, or None; got {threads!r}")
    deployment = Deployment.read(folder)
    deployment.check_files(folder)
    task = Task.read(folder)
    if task.has_language_head:
        raise ArtifactError(
            f"{folder / TASK_FILE}: the task {task.answers}, but an exported model predicts a "
            "class or a score; export the model again"
        )
    _require_agreement(folder, task)
    opened = _open(folder, deployment, threads or usable_cores(), task.max_length)
    return CheckedRuntime(opened, folder, task)


class CheckedRuntime:
    """Wraps a runtime and checks its errors and the shape of its outputs, because a graph may be
    arbitrary.
    """

    def __init__(self, runtime: Runtime, folder: Path, task: Task) -> None:
        self._runtime, self._folder, self._task = runtime, folder, task

    def logits(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """As `Runtime.logits`.

        Raises:
            ArtifactError: the model fails on these inputs, or its output has another shape.
            ResourceError: it needs more memory than is available.
        """
        try:
            logits = self._runtime.logits(batch)
        except AttarError:
            raise
        except Exception as error:  # no common base class below Exception
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
            if isinstance(error, MemoryError) or any(words in reason for words in OUT_OF_MEMORY):
                raise ResourceError(
                    f"the model in {self._folder} needs more memory than there is ({reason})"
                ) from error
            raise ArtifactError(
                f"the model in {self._folder} fails ({reason}); export the model again"
            ) from error
        rows, tokens = next(iter(batch.values())).shape
        width = self._task.num_outputs or logits.shape[-1]
        wanted = (rows, tokens, width) if self._task.kind.answers_tokens else (rows, width)
        if logits.shape != wanted:
            raise ArtifactError(
                f"the model in {self._folder} returned outputs of shape {logits.shape} for {rows} "
                f"texts, its {TASK_FILE} says {wanted}; export the model again"
            )
        return logits

    def padded(self, tokens: int) -> int:
        return self._runtime.padded(tokens)


def _require_agreement(folder: Path, task: Task) -> None:
    """Raise if `task.json` disagrees with `config.json`, which other programs read."""
    if not has_entry(folder / CONFIG_FILE):
        return
    config = read_json(folder / CONFIG_FILE)
    try:
        longest = positions_of(config)
        by_number = {int(i): str(name) for i, name in (config.get("id2label") or {}).items()}
    except (AttributeError, TypeError, ValueError):
        return  # of another type: nothing that could be compared
    if longest is not None and task.max_length > longest:
        raise ArtifactError(
            f"{folder / TASK_FILE} has max_length {task.max_length}, but the model has {longest} "
            f"positions ({CONFIG_FILE}); export the model again"
        )
    names = [by_number[i] for i in sorted(by_number)]
    placeholders = [f"LABEL_{i}" for i in range(len(names))]
    if not task.kind.has_labels or names in ([], placeholders):
        return
    if names != list(task.label_names):
        raise ArtifactError(
            f"{folder}: {TASK_FILE} names the classes {list(task.label_names)}, and {CONFIG_FILE} "
            f"{names}, so other programs would give other labels; export the model again"
        )


def _open(folder: Path, deployment: Deployment, count: int, max_length: int) -> Runtime:
    file = folder / MODEL_FILES[deployment.format][0]
    if deployment.format == "safetensors":
        from attar.models.deployed.cpu_runtimes import TorchRuntime

        with training_explained():
            return TorchRuntime(folder, count)
    if deployment.format == "openvino":
        from attar.models.deployed.cpu_runtimes import OpenVinoRuntime

        check_openvino(file)
        return OpenVinoRuntime(file, count, max_length)
    from attar.models.deployed.cpu_runtimes import OnnxRuntime

    check_onnx(file, deployment.files)
    if (
        deployment.cpu.get("int8")
        and deployment.precision != "float32"
        and needs_unsigned_weights()
    ):
        warnings.warn(
            f"{folder} was exported on a CPU with int8 dot products "
            f"({', '.join(deployment.cpu['int8'])}), and this CPU has none: 8-bit sums may "
            "saturate and silently give wrong predictions; export the model again on a machine "
            "like this one",
            UserWarning,
            stacklevel=3,
        )
    return OnnxRuntime(file, count)


def model_size_mib(folder: Path, form: RuntimeName) -> float:
    """Size of graph and weights in MiB, without tokenizer and metadata."""
    return sum((folder / name).stat().st_size for name in MODEL_FILES[form]) / 2**20
