"""A proxy: the body of a small language model, with a linear head that predicts a chunk's score.

    h̄ = mean of the last hidden states over the chunk's tokens
    z = B · tanh((w·h̄ + b) / B)              the standardised score, within ±B
    r̂ = mean + std · z                       in nats per token

mean and std are those of the training scores, and B is twice the largest |z| among them:
predictions stay near the range of the training scores and can reach all of them.

A proxy is a model folder (the body, without its language head) with an additional
`proxy.safetensors`: w, b, mean, std and B. Its input is that of a language model: all tokens of a
chunk except the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from attar.artifacts import disk_errors_explained
from attar.errors import ArtifactError, ModelError
from attar.models.load import LoadedModel, load_model, save_model
from attar.models.sources.references import PROXY_FILE
from attar.seeds import derive_seed
from attar.training.objectives.spans import padded
from attar.untrusted import checked

INITIAL_STD = 0.02
"""Standard deviation of a new head's weights, transformers' default."""


@dataclass(frozen=True)
class Scale:
    """Conversion between scores in nats per token and the standardised scores that a proxy
    learns."""

    mean: float
    std: float
    bound: float
    """Bound of standardised predictions."""

    @classmethod
    def of(cls, scores: NDArray[np.float32]) -> Scale:
        """The scale of training scores, which must not all be equal."""
        wide = scores.astype(np.float64)
        mean, std = float(wide.mean()), float(wide.std())
        return cls(mean, std, 2 * float(np.abs((wide - mean) / std).max()))

    def standardised(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        return ((scores.astype(np.float64) - self.mean) / self.std).astype(np.float32)

    def in_nats(self, standardised: NDArray[np.float32]) -> NDArray[np.float32]:
        return (self.mean + self.std * standardised.astype(np.float64)).astype(np.float32)


class Proxy(nn.Module):
    """A body and its head, called like a transformers model: logits (B, 1) are z."""

    def __init__(self, body: PreTrainedModel, scale: Scale, seed: int) -> None:
        super().__init__()
        if body.config.is_encoder_decoder:
            raise ModelError(
                f"a proxy needs a single stack, and {body.config.model_type!r} models are "
                "encoder-decoders; name a causal LM"
            )
        self.body, self.scale = body, scale
        self.head = nn.Linear(body.config.get_text_config().hidden_size, 1)
        draw = torch.Generator().manual_seed(derive_seed(seed, "proxy head"))
        nn.init.normal_(self.head.weight, std=INITIAL_STD, generator=draw)
        nn.init.zeros_(self.head.bias)

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def get_output_embeddings(self) -> None:
        """None: it has no language head."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, **_: Any
    ) -> SequenceClassifierOutput:
        states: Tensor = self.body(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        raw = self.head(mean_over_tokens(states, attention_mask).to(self.head.weight.dtype))
        bound = self.scale.bound
        return SequenceClassifierOutput(logits=bound * torch.tanh(raw / bound))


def mean_over_tokens(states: Tensor, mask: Tensor) -> Tensor:
    """Mean of (B, T, D) over the tokens whose mask (B, T) is 1, in float32: (B, D)."""
    is_token = mask[:, :, None].bool()
    sums = torch.where(is_token, states.float(), 0).sum(1)
    return sums / is_token.sum(1)


def read_of(chunk: NDArray[np.int64]) -> NDArray[np.int64]:
    """The input tokens of a chunk; the last token is only predicted."""
    return chunk[:-1] if len(chunk) > 1 else chunk


class ProxyScorer:
    """Predicts scores of chunks with a proxy, in nats per token."""

    quantity: ClassVar[str] = "predicted"

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy.eval()
        self.model = proxy.body
        table: Any = self.model.get_input_embeddings()
        self.vocabulary = table.num_embeddings

    @torch.inference_mode()
    def __call__(self, chunks: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        arrays = padded([read_of(chunk) for chunk in chunks], pad=0)
        ids, mask = (torch.from_numpy(array).to(self._proxy.device) for array in arrays)
        z = self._proxy(input_ids=ids, attention_mask=mask).logits[:, 0]
        return self._proxy.scale.in_nats(z.cpu().numpy())

    def summary(self, total: float, chunks: int, tokens: int) -> dict[str, float | None]:
        return {"mean_predicted": total / chunks if chunks else None}


def save_proxy(proxy: Proxy, source: LoadedModel, folder: Path) -> None:
    """Write a proxy's folder.

    Args:
        source: the model it was made from, for its tokenizer.

    Raises:
        ResourceError: the disk is full.
    """
    save_model(replace(source, model=proxy.body, task=None), folder)
    scale = {name: torch.tensor(x, dtype=torch.float64) for name, x in vars(proxy.scale).items()}
    head = {"weight": proxy.head.weight.detach(), "bias": proxy.head.bias.detach()}
    with disk_errors_explained(folder):
        save_file(head | scale, folder / PROXY_FILE)


def is_proxy(folder: Path) -> bool:
    """Whether a model folder is a proxy."""
    return (folder / PROXY_FILE).exists()


def load_proxy(folder: Path) -> Proxy:
    """Load a proxy.

    Raises:
        ModelError, ArtifactError: as `load_model`; or the head is damaged or does not fit the body.
    """
    body = load_model(folder).model
    file = checked(folder / PROXY_FILE)
    try:
        tensors = load_file(file)
        scale = Scale(**{name: float(tensors.pop(name)) for name in ("mean", "std", "bound")})
        proxy = Proxy(body, scale, seed=0)
        proxy.head.load_state_dict(tensors)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"{file} is not the head of a proxy with this body ({error}); run the proxy step again"
        ) from error
    return proxy.eval()
