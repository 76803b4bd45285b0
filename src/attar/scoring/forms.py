"""A common interface to models in all forms: float, simulated or deployed.

    float        a model folder with model.safetensors      torch, eager mode, float32
    simulated    a model folder with qparams.json           torch, fake-quantized, float32
    openvino     an exported folder                         OpenVINO, no torch
    onnxruntime  an exported folder                         ONNX Runtime, no torch

An exported folder of packed integers (format safetensors) is also run as a simulated model.

Code that measures models asks a `Form` for logits, size and cost and never checks which one it is.
torch is imported only for the first two, so that the memory of a deployed model can be measured.
Shapes: B texts, T tokens, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from attar.artifacts import MIB
from attar.cores import torch_threads
from attar.data.tokenize import Encoded, TextEncoder
from attar.data.windows import WindowEncoder
from attar.errors import ArtifactError, ModelError
from attar.models.deployed.runtimes import DEPLOY_FILE, Deployment, model_size_mib, open_runtime
from attar.models.foreign import task_of
from attar.models.simulated.qparams import QPARAMS_FILE
from attar.models.sources.references import find_model_folder
from attar.models.sources.safe_files import WEIGHTS_FILE, weight_files
from attar.tasks.task import Generation, Task
from attar.untrusted import has_entry

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from attar.models.stages import Stages
    from attar.scoring.label_words import LabelWords
    from attar.scoring.rows import Scorer

FormName = Literal["float", "simulated", "openvino", "onnxruntime"]


@dataclass(frozen=True)
class WrittenTokens:
    ids: np.ndarray
    """int64 (B, S), padded, including special tokens."""
    num_tokens: int
    """Number of generated tokens, including end tokens, without padding."""


class Form(ABC):
    """A fine-tuned model for inference."""

    form: FormName
    folder: Path
    """Folder with tokenizer.json, config.json and task.json."""
    task: Task
    num_params: int
    size_mib: float
    """Size of weights and graph in MiB, without the tokenizer."""

    @cached_property
    def encoder(self) -> TextEncoder:
        return TextEncoder.from_folder(self.folder, self.task.max_length, self.task.input_names)

    @cached_property
    def window_encoder(self) -> WindowEncoder:
        """Splits long texts into windows, for a model with a prediction per token."""
        return WindowEncoder(self.folder, self.task)

    def encode(self, texts: Sequence[tuple[str, ...]]) -> Encoded:
        """Tokenize rows for the model."""
        return self.encoder.encode(self.task.texts_read(texts))

    @abstractmethod
    def logits(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Logits (B, C), float32, for int64 inputs (B, T).

        For a model that generates label words: the log-likelihood of each class's word, or the most
        likely number (B, 1). For a causal language model: (B, T, V). For a head with a prediction
        per token: (B, T, C).
        """

    def padded(self, tokens: int) -> int:
        return tokens

    def generate(self, batch: Mapping[str, np.ndarray]) -> WrittenTokens:
        """Generate text from int64 inputs (B, T).

        Raises:
            ModelError: the model does not generate text.
        """
        raise ModelError(
            f"{self.folder} ({self.form}) does not generate text; models of text_to_text run in "
            "torch, float or simulated: name the step that trained or quantized one"
        )

    def nats(self, ids: np.ndarray) -> np.ndarray:
        """−log p of every token except the first of each row, float32 (B, T − 1), for int64 ids (B,
        T).

        Raises:
            ModelError: the model does not predict the next token.
        """
        raise self._predicts_nothing()

    def language_model(self) -> PreTrainedModel:
        """The causal language model itself.

        Raises:
            ModelError: the model does not predict the next token.
        """
        raise self._predicts_nothing()

    def _predicts_nothing(self) -> ModelError:
        return ModelError(
            f"{self.folder} ({self.form}) does not predict the next token; causal language models "
            "run in torch, float or simulated: name the step that trained or quantized one"
        )

    def nats_of_targets(self, inputs: Mapping[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
        """Σ −log p over the labels of each row, float64 (B,), for a model that predicts hidden
        tokens.

        Args:
            inputs: int64 (B, T); for the decoder of an encoder-decoder, (B, S).
            labels: int64 (B, S); negative ones are ignored.

        Raises:
            ModelError: the model predicts no hidden tokens.
        """
        raise self._hides_nothing()

    @property
    def start_id(self) -> int:
        """The decoder's first input token.

        Raises:
            ModelError: as `nats_of_targets`.
        """
        raise self._hides_nothing()

    def _hides_nothing(self) -> ModelError:
        return ModelError(
            f"{self.folder} ({self.form}) does not predict hidden tokens; models that do run in "
            "torch, float or simulated: name the step that trained or quantized one"
        )

    @abstractmethod
    def flops(self, batch: int, tokens: int) -> int:
        """FLOPs of one forward pass; a multiply-add counts as 2, for integers as for floats."""

    def parts(self, tokens: int) -> dict[str, dict[str, int]]:
        """Part → parameters, and FLOPs for one text; empty: the parts are unknown."""
        return {}

    def stages(self, batch: Mapping[str, np.ndarray]) -> Stages | None:
        """Separate encoding and decoding stages, for int64 inputs (B, T); None: the model does not
        generate text token by token."""
        return None


class TorchForm(Form):
    """A float or simulated model in plain eager torch."""

    def __init__(self, folder: Path, form: FormName, threads: int | None) -> None:
        import torch

        from attar.models.cost import num_params

        if form == "simulated":
            from attar.models.simulated.packing import size_mib
            from attar.models.simulated.quantized import load_simulated

            loaded = load_simulated(folder)
            self.size_mib = size_mib(folder)
        else:
            from attar.models.load import load_model

            loaded = load_model(folder)
            self.size_mib = sum(file.stat().st_size for file in weight_files(folder)) / MIB
        self.form, self.folder, self._threads = form, folder, threads or torch.get_num_threads()
        self.task = task_of(folder)
        self._model = loaded.model.eval()
        self.num_params = num_params(self._model)

    def encode(self, texts: Sequence[tuple[str, ...]]) -> Encoded:
        if self._words is None:
            return super().encode(texts)
        return self._words.encode(self._model, self.folder, texts, self.task.max_length)

    def logits(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        with torch_threads(self._threads):
            return self._answer(batch)

    @cached_property
    def _words(self) -> LabelWords | None:
        """The label words of the classes; None: the model has a classification head."""
        from attar.scoring.label_words import LabelWords

        return LabelWords.of_task(self._model, self.folder, self.task)

    @cached_property
    def _answer(self) -> Scorer:
        from attar.scoring.in_memory import head_logits
        from attar.scoring.label_words import label_word_scores

        if self._words is None:
            return head_logits(self._model)
        scores = label_word_scores(self._model, self._words.candidates)
        if not self.task.kind.is_score:
            return scores
        values = np.array(self.task.word_values, dtype=np.float32)
        return lambda batch: values[scores(batch).argmax(axis=1)][:, None]

    def nats(self, ids: np.ndarray) -> np.ndarray:
        from attar.scoring.in_memory import token_nats

        with torch_threads(self._threads):
            return token_nats(self.language_model(), ids)

    def language_model(self) -> PreTrainedModel:
        if self.task.kind.answer != "next":
            return super().language_model()
        return self._model

    def nats_of_targets(self, inputs: Mapping[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
        import torch

        from attar.scoring.in_memory import row_nats

        if not self.task.kind.hides:
            return super().nats_of_targets(inputs, labels)
        fed = {name: torch.from_numpy(array) for name, array in inputs.items()}
        wanted = torch.from_numpy(labels)
        with torch_threads(self._threads):
            return row_nats(self._model, fed, wanted, wanted >= 0)

    @property
    def start_id(self) -> int:
        from attar.models.generation import start_of

        if not self._model.config.is_encoder_decoder:
            return super().start_id
        return start_of(self._model, str(self.folder))

    def generate(self, batch: Mapping[str, np.ndarray]) -> WrittenTokens:
        import torch

        from attar.models.generation import generate, tokens_read

        task = self.task
        if not task.kind.writes:
            if self._words is None or not self._model.config.is_encoder_decoder:
                return super().generate(batch)
            # the longest label word, and end tokens
            longest = max(map(len, self._words.candidates.ids))
            task = task.model_copy(update={"generation": Generation(max_new_tokens=longest)})
        ids, mask = (torch.from_numpy(batch[name]) for name in ("input_ids", "attention_mask"))
        with torch_threads(self._threads):
            written = generate(self._model, task, ids, mask)
        # the number of input tokens equals that of generated ones: start token included, last one
        # excluded
        num_tokens = int(tokens_read(written, self._model.config.eos_token_id).sum())
        return WrittenTokens(written.numpy(), num_tokens)

    def flops(self, batch: int, tokens: int) -> int:
        from attar.models.cost import flops

        return flops(self._model, batch, tokens)

    def parts(self, tokens: int) -> dict[str, dict[str, int]]:
        from attar.models.cost_by_part import known_parts

        return known_parts(self._model, tokens)

    def stages(self, batch: Mapping[str, np.ndarray]) -> Stages | None:
        import torch

        from attar.models.stages import stages_of

        if not self.task.has_language_head:
            return None
        ids, mask = (torch.from_numpy(batch[name]) for name in ("input_ids", "attention_mask"))
        return stages_of(self._model, ids, mask)


class DeployedForm(Form):
    """An exported model in its runtime."""

    def __init__(self, folder: Path, threads: int | None) -> None:
        self._deployment = Deployment.read(folder)
        self._runtime = open_runtime(folder, threads)
        form = self._deployment.format
        self.form = "simulated" if form == "safetensors" else form
        self.folder = folder
        self.task = Task.read(folder)
        self.num_params = self._deployment.num_params
        self.size_mib = model_size_mib(folder, form)

    def logits(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        return self._runtime.logits(batch)

    def padded(self, tokens: int) -> int:
        return min(self._runtime.padded(tokens), self.task.max_length)

    def flops(self, batch: int, tokens: int) -> int:
        return self._deployment.flops.of(batch, tokens)


def open_form(path: Path, threads: int | None = None) -> Form:
    """Open a step's artifact or a model folder, in any form.

    Args:
        threads: number of threads per call; None: the runtime's default.

    Raises:
        ArtifactError: the folder is in none of the four forms, or damaged.
    """
    if has_entry(path / DEPLOY_FILE):
        return DeployedForm(path, threads)
    folder = find_model_folder(path)
    if has_entry(folder / QPARAMS_FILE):
        return TorchForm(folder, "simulated", threads)
    if has_entry(folder / "config.json"):
        return TorchForm(folder, "float", threads)
    raise ArtifactError(
        f"{path} holds no model: expected {DEPLOY_FILE} (exported), {QPARAMS_FILE} (quantized) or "
        f"{WEIGHTS_FILE} with config.json (float); name the folder of a step that made a model"
    )
