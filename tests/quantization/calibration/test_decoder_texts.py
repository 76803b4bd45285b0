"""A model that writes text, from training to six bits: calibrated on its own words, with masks on
both sides, it still writes the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import summaries
from attar.data.config import FilesData
from attar.data.load import load_data
from attar.data.tokenize import TextEncoder
from attar.evaluation.config import EvaluateStep
from attar.evaluation.run import evaluate
from attar.models.generation import generate, tokens_read
from attar.models.load import LoadedModel, load_model
from attar.models.simulated.quantized import load_simulated
from attar.models.structure.ports import use_attar_attention_
from attar.models.structure.sites import sites_of
from attar.progress import Progress
from attar.quantization.calibration.calibrate import Batch, calibrate
from attar.quantization.calibration.decoder_texts import decoder_inputs, with_generations
from attar.quantization.calibration.outputs import real_logits
from attar.step import StepContext

SAME = {"rtol": 1e-5, "atol": 1e-5}
"""Float sums of another width."""
ROUGE_LOST = 0.05
"""Two or three words of a hundred: what six bits may cost a model that copies without a mistake."""

FLIPPED = 0.05
"""Share of the quantization error: a float sum in another order may round to the next integer."""
QUICK = {"batch_sizes": [1], "tokens": 12, "threads": 1, "rounds": 3, "calls": 1}
"""One thread: tiny tensors on two threads of a busy machine wait for each other."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the trained model `bart` and the data `texts`. Read-only by agreement."""
    folder = tmp_path_factory.mktemp("summaries")
    summaries.write_summariser(folder / "bart")
    summaries.write_data(folder / "texts")
    return folder


def context_for(root: Path, folder: Path, **inputs: Path) -> StepContext:
    folder.mkdir(exist_ok=True)
    return StepContext(
        name=folder.name,
        folder=folder,
        scratch=folder / ".scratch",
        inputs={"student": root / "bart", **inputs},
        data={"texts": FilesData(path=str(root / "texts"), objective="text_to_text")},
        recipe_folder=root,
        progress=Progress(quiet=True),
    )


def quantized(root: Path, folder: Path, **settings: Any) -> dict[str, Any]:
    from pydantic import TypeAdapter

    from attar.quantization.config import QuantizeStep
    from attar.quantization.run import quantize

    calibration = {"data": "texts", "examples": 24}
    config = TypeAdapter(QuantizeStep).validate_python(
        {"model": "student", "calibration": calibration, **settings}
    )
    return quantize(config, context_for(root, folder))


def watched(root: Path) -> LoadedModel:
    loaded = load_model(root / "bart", attention="eager")
    use_attar_attention_(loaded.model)
    return loaded


def source_batch(root: Path, rows: int = 6) -> dict[str, Tensor]:
    split = load_data(FilesData(path="texts", objective="text_to_text"), root).split("validation")
    encoder = TextEncoder.from_folder(
        root / "bart", summaries.MAX_LENGTH, ("input_ids", "attention_mask")
    )
    batch = encoder.encode(split.texts[:rows]).batch(range(rows))
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def read_batch(loaded: LoadedModel, root: Path) -> Batch:
    """A batch with what the model wrote; every second text as if it had ended two words before."""
    [batch] = with_generations(loaded, [source_batch(root)], context_for(root, root / "unused"))
    batch["decoder_attention_mask"][::2, -2:] = 0
    batch["decoder_input_ids"][::2, -2:] = 1
    return batch


def padded(batch: Batch, names: str, width: int, *, left: bool) -> Batch:
    """The same texts with `width` more columns of padding on one side of the model."""
    sides = (width, 0) if left else (0, width)
    return {
        name: torch.nn.functional.pad(x, sides, value=1 if name.endswith("ids") else 0)
        if name.startswith("decoder_") == (names == "decoder")
        else x
        for name, x in batch.items()
    }


def test_the_trained_model_writes_the_first_words(root: Path) -> None:
    """Without this, that quantization loses nothing would say nothing."""
    loaded, batch = load_model(root / "bart"), source_batch(root)
    assert loaded.task is not None
    written = generate(loaded.model, loaded.task, batch["input_ids"], batch["attention_mask"])
    copied = batch["input_ids"][:, 1 : 1 + summaries.COPIED]
    assert torch.equal(written[:, 2 : 2 + summaries.COPIED], copied)


def test_the_decoder_reads_all_it_wrote_but_the_end(root: Path) -> None:
    loaded, batch = watched(root), source_batch(root)
    [read] = with_generations(loaded, [batch], context_for(root, root / "unused"))
    assert loaded.task is not None
    written = generate(loaded.model, loaded.task, batch["input_ids"], batch["attention_mask"])
    real = read["decoder_attention_mask"] > 0
    assert torch.equal(real.sum(1), torch.full((len(real),), 2 + summaries.COPIED))
    assert torch.equal(read["decoder_input_ids"][real], written[:, :-1][real])
    assert not bool((read["decoder_input_ids"][real][1:] == 1).any())


def test_one_pass_over_what_was_written_would_write_it_again(root: Path) -> None:
    """Teacher forcing visits the activations of writing: the best next word is the word written."""
    loaded, batch = watched(root), source_batch(root)
    task = loaded.task.model_copy(  # type: ignore[union-attr]
        update={"generation": loaded.task.generation.model_copy(update={"num_beams": 1})}  # type: ignore[union-attr]
    )
    written = generate(loaded.model, task, batch["input_ids"], batch["attention_mask"])
    with torch.no_grad():
        logits = real_logits(loaded.model, {**batch, **decoder_inputs(loaded, written)})
    is_read = tokens_read(written, 2)[:, :-1] > 0
    assert torch.equal(logits.argmax(-1), written[:, 1:][is_read])


@pytest.mark.parametrize("side", ["encoder", "decoder"])
@pytest.mark.parametrize("left", [False, True])
def test_padding_on_either_side_changes_no_statistic(root: Path, side: str, left: bool) -> None:
    loaded, context = watched(root), context_for(root, root / "unused")
    batch = read_batch(loaded, root)
    more = padded(batch, side, 3, left=left)
    plain, wide = (
        calibrate(loaded.model, sites_of(loaded.model), [b], context) for b in (batch, more)
    )
    assert plain.num_tokens == wide.num_tokens
    for site, found in plain.statistics.items():
        other = wide.statistics[site]
        assert found.histogram.num_values == other.histogram.num_values, site
        assert other.batch_lows == pytest.approx(found.batch_lows, rel=1e-5, abs=1e-5), site
        assert other.batch_highs == pytest.approx(found.batch_highs, rel=1e-5, abs=1e-5), site
    torch.testing.assert_close(plain.logits[0], wide.logits[0], **SAME)


def test_statistics_count_real_tokens_and_pairs_only(root: Path) -> None:
    loaded, context = watched(root), context_for(root, root / "unused")
    batch = read_batch(loaded, root)
    found = calibrate(loaded.model, sites_of(loaded.model), [batch], context)
    source, target = (batch[name].sum(1) for name in ("attention_mask", "decoder_attention_mask"))
    heads, hidden = 4, 48
    wanted = {
        ("encoder", "query"): hidden * source.sum(),
        ("decoder", "query"): hidden * target.sum(),
        ("decoder", "cross_key"): hidden * source.sum(),
        ("encoder", "attention_probs"): heads * (source * source).sum(),
        ("decoder", "cross_probs"): heads * (source * target).sum(),
        ("decoder", "attention_probs"): heads * (target * (target + 1) / 2).sum(),
    }
    for site, statistics in found.statistics.items():
        if (site.stack, site.kind) in wanted:
            count = int(wanted[site.stack, site.kind])
            assert statistics.histogram.num_values == count, site


def test_kept_outputs_are_the_logits_at_real_tokens(root: Path) -> None:
    loaded, context = watched(root), context_for(root, root / "unused")
    batch = read_batch(loaded, root)
    bias: Tensor = loaded.model.final_logits_bias  # pyright: ignore[reportAssignmentType]
    bias.normal_(generator=torch.Generator().manual_seed(0))
    found = calibrate(loaded.model, sites_of(loaded.model), [batch], context)
    with torch.no_grad():
        logits = loaded.model(**batch).logits[batch["decoder_attention_mask"] > 0]
    torch.testing.assert_close(found.logits[0], logits, **SAME)
    assert found.error_of([logits + 0.5]) == pytest.approx(0.25, rel=1e-3)


METHODS = {
    "minmax": {"method": "minmax"},
    "percentile-6": {"method": "percentile", "weight_bits": 6, "activation_bits": 6},
    "clipping-6": {"method": "token_wise_clipping", "weight_bits": 6, "activation_bits": 6},
    "whole-6": {"method": "outlier_suppression", "weight_bits": 6, "activation_bits": 6},
}


@pytest.mark.parametrize("settings", METHODS.values(), ids=list(METHODS))
def test_a_quantized_summariser_writes_nearly_what_the_float_one_writes(
    root: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    metrics = quantized(root, tmp_path / "int", **settings)
    assert metrics["calibration"]["batches"] == 6  # 24 texts, 4 at a time
    config = EvaluateStep.model_validate(
        {
            **{"models": ("student", "int"), "data": "texts", "batch_size": 8, "memory": False},
            **{"bootstrap": 100, "speed": QUICK},
        }
    )
    context = context_for(root, tmp_path / "scores", int=tmp_path / "int")
    found = evaluate(config, context)["models"]
    for metric in ("rouge1", "rouge2", "rougeL"):
        assert found["student"][metric]["value"] > 0.95
        lost = found["student"][metric]["value"] - found["int"][metric]["value"]
        assert abs(lost) <= ROUGE_LOST
    assert (found["int"]["form"], found["student"]["form"]) == ("simulated", "float")
    assert found["int"]["tokens_per_s"] > 0
    assert found["int"]["num_params"] == found["student"]["num_params"]


def test_a_quantized_decoder_says_the_same_word_by_word_from_its_cache(
    root: Path, tmp_path: Path
) -> None:
    """Keys and values are rounded before they are cached, so each is rounded once, and the same."""
    quantized(root, tmp_path / "int", method="minmax", transform="gamma", activation_bits=6)
    model, unrounded = load_simulated(tmp_path / "int" / "model").model, watched(root)
    batch = read_batch(unrounded, root)
    words, mask = batch["decoder_input_ids"], batch["attention_mask"]
    said: list[Tensor] = []
    with torch.inference_mode():
        wanted = model(**batch, use_cache=False).logits
        error = unrounded.model(**batch, use_cache=False).logits - wanted
        read = model.get_encoder()(input_ids=batch["input_ids"], attention_mask=mask)
        cache = None
        for place in range(words.shape[1]):
            outputs = model(
                encoder_outputs=read,
                attention_mask=mask,
                decoder_input_ids=words[:, place : place + 1],
                past_key_values=cache,
                use_cache=True,
            )
            cache = outputs.past_key_values
            said.append(outputs.logits)
    real = batch["decoder_attention_mask"] > 0
    difference = (torch.cat(said, dim=1) - wanted)[real]
    assert difference.norm() <= FLIPPED * error[real].norm()


def test_a_tied_head_is_stored_once(root: Path, tmp_path: Path) -> None:
    from attar.models.simulated.qparams import ModelQParams

    quantized(root, tmp_path / "int", method="minmax")
    qparams = ModelQParams.read(tmp_path / "int" / "model")
    assert qparams.tied["lm_head.weight"] == "model.shared.weight"
    assert {"model.encoder.embed_tokens.weight", "lm_head.weight"} <= set(qparams.tied)
    model = load_simulated(tmp_path / "int" / "model").model
    assert torch.equal(model.lm_head.weight, model.model.shared.weight)
