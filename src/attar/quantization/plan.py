"""Estimates a quantize step in forward passes over its calibration texts and training rows.

The cost is a sum over the parts of the method; each part states its passes in its own module:

    calibration and measurement of the losses    3
    + transform  + weight rule  + ranges  + refinement  + sensitivities of a budget

A backward pass counts as two forward passes. A range search stops bad candidates early, so its
passes are an average counted on small models (and checked by the tests), not an upper bound. Left
out: work other than passes, such as the Hessians of `gptq`.
"""

from __future__ import annotations

from torch import nn

from attar.models.structure.sites import quantized_weights
from attar.planning import OPEN_SECONDS, RUNTIME_MIB, ModelPlan, PlanContext, PlannedTexts
from attar.quantization.calibration.calibrate import require_examples
from attar.quantization.calibration.texts import blocks_of
from attar.quantization.config import BATCH_SIZE, QatStep, QuantizeSettings
from attar.quantization.method import Passes
from attar.quantization.methods import method_of
from attar.quantization.precision.tensor_errors import EXAMPLES
from attar.quantization.weights.rules import WEIGHT_PASSES
from attar.step import StepPlan

ALWAYS = 3
"""Calibration, the SQNR of each site, and the SQNR of the logits."""
MOVED = 2
"""Passes of a transform: observing the tensors, and the certificate."""
SKIPPED_SHARE = 0.5
"""Share of a sensitivity pass that is saved: blocks before the tensor are not recomputed."""
MEASURED_PLANS = 9


def plan_quantize(config: QuantizeSettings, context: PlanContext) -> StepPlan:
    """Plan a quantize step.

    Raises:
        DataError: fewer training rows, or blocks of running text, than calibration examples.
    """
    texts, source = context.texts, context.model(config.model, None, 128)
    bytes_per_param = mean_weight_bits(config, source.cost.model) / 8
    model = ModelPlan(source.cost, source.tokenizer_folder, bytes_per_param, source.max_length)
    context.models[context.name] = model
    data, wanted = config.calibration.data, config.calibration.examples
    tokens = calibrating_tokens(texts, data, wanted, model)
    passes = passes_of(config, model.cost.model)
    flops = round(passes.texts * wanted * model.cost.flops(1, tokens))
    training, counts = 0, {"calibration.examples": wanted}
    if isinstance(config, QatStep):
        rows, row_tokens = texts.count(config.data or data, "train", model)
        training = round(passes.training * rows * model.cost.flops(1, row_tokens))
        counts["training.train_rows"] = rows
    batch = config.calibration.batch_size or BATCH_SIZE
    text_mib = model.activation_mib(tokens)
    return StepPlan(
        num_params=model.cost.num_params,
        flops=flops + training,
        memory_mib=RUNTIME_MIB + 2 * source.size_mib + batch * text_mib,
        disk_mib=model.size_mib,
        seconds=OPEN_SECONDS + context.seconds(forward=flops, training=training),
        counts=counts,
        passes=passes.texts + passes.training,
        texts_at_once=batch,
        text_mib=text_mib,
    )


def calibrating_tokens(texts: PlannedTexts, data: str, wanted: int, model: ModelPlan) -> int:
    """Mean number of tokens of the calibration rows, or blocks of running text.

    Raises:
        DataError: there are fewer than `wanted`.
    """
    rows, tokens = texts.count(data, "train", model)
    is_running = texts.loaded(data).kind.is_running
    require_examples(rows, wanted, data, *[blocks_of(model.max_length)] * is_running)
    return tokens


def passes_of(config: QuantizeSettings, model: nn.Module) -> Passes:
    """Passes over the calibration texts, and over the training rows of a method that trains.

    Args:
        model: a model of the step's architecture; its weights are not read.
    """
    method = method_of(config)
    texts = ALWAYS + method.range_passes(config) + _budget_passes(config, model)
    texts += MOVED * (method.transform_of(config) != "none")
    texts += WEIGHT_PASSES[method.weights_of(config)]
    learned = Passes()
    if method.refine is not None and config.refine:
        learned = method.refine.passes(config)
    return Passes(texts + learned.texts, learned.training)


def mean_weight_bits(config: QuantizeSettings, model: nn.Module) -> float:
    """Average bits per parameter, as far as the recipe determines it."""
    asked = None if config.budget is None else config.budget.average_bits
    linear = config.weight_bits if asked is None else asked
    embedding = linear if config.embedding_bits is None else config.embedding_bits
    tables = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding))
    share = tables / sum(parameter.numel() for parameter in model.parameters())
    return share * embedding + (1 - share) * linear


def _budget_passes(config: QuantizeSettings, model: nn.Module) -> float:
    """Passes for the sensitivity of every tensor at every width, and for evaluating plans."""
    if config.budget is None:
        return 0
    search = method_of(config).range_passes(config)
    part = min(1.0, EXAMPLES / config.calibration.examples)
    tensors = len(quantized_weights(model))
    widths = sorted(config.budget.widths)
    if config.budget.max_latency_ms is not None:  # weights and sites at one width
        return part * (SKIPPED_SHARE * 2 * tensors + MEASURED_PLANS * (1 + search))
    alone = SKIPPED_SHARE * tensors * len(widths)
    searches = float(MEASURED_PLANS)
    if widths[0] <= config.activation_bits < widths[-1]:  # sites get mixed widths too
        alone *= 2
        searches += len(widths)
    return part * (alone + MEASURED_PLANS + searches * search)
