"""What a recipe will cost, before anything runs: parameters, FLOPs, memory, disk and time per step.

Parameters and FLOPs of a forward pass are exact: each model is built on torch's meta device,
without weights. Texts are counted with the model's own tokenizer. Memory and disk follow from them
by the formulas below. Time is FLOPs over the speed of a matrix product measured here and now, times
the share of that speed a whole step reaches:

    train     flops = texts · tokens · (3 · student + 1 · teacher)      (a backward pass is 2
        forwards)
    memory    weights, gradients and Adam's two moments: 16 bytes a parameter; a teacher: 4;
              activations kept for the backward pass, in float32
    disk      two checkpoints of 12 bytes a parameter while training, 4 afterwards

Left out: shared pages, memory of the allocator, caches of the runtimes. Expect ± 50 % on time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from attar.analysis.config import (
    AnalyzeSettings,
    DisablingStep,
    HistogramsStep,
    JudgedStudy,
    TextStudy,
)
from attar.artifacts import MIB, read_json
from attar.data.augmented import with_copies
from attar.distillation.config import AugmentStep
from attar.evaluation.config import EvaluateStep
from attar.export.config import ExportStep
from attar.export.run import data_of_model
from attar.models.config import ChangedModel, FromConfig, ModelReference, referenced_model
from attar.models.cost import Cost, cost_of
from attar.models.load import check_length
from attar.models.sources.references import resolve_model
from attar.models.surgery import changed
from attar.quantization.calibration.calibrate import choose_examples
from attar.quantization.config import BATCH_SIZE, QatStep, QuantizeSettings
from attar.recipe.analyze_work import study_passes
from attar.recipe.cache_work import cache_bytes
from attar.recipe.pairs import PlannedTeacher, content_of, require_pair
from attar.recipe.plan_table import Plan, StepPlan
from attar.recipe.plan_texts import WORD_TOKENS, Head, ModelPlan, PlannedTexts, cost_under
from attar.recipe.quantize_work import mean_weight_bits, text_passes, training_passes
from attar.recipe.schema import Recipe
from attar.training.cache_config import CacheStep
from attar.training.config import TrainStep
from attar.training.update.precision import choose_precision

RUNTIME_MIB = 450
"""Resident size of Python with torch and transformers loaded, before any model."""
TRAIN_SHARE, FORWARD_SHARE = 0.4, 0.5
"""Share of a plain matrix product's speed that training and inference reach on small models;
measured on the demo (benchmarks/results)."""
EXPORT_SECONDS, REPORT_SECONDS, OPEN_SECONDS = 12.0, 4.0, 5.0
"""An export, a report, and opening one model in a process of its own: hardly depend on the
model."""


def plan_recipe(recipe: Recipe, recipe_folder: Path) -> Plan:
    """Plan every step of a checked recipe; relative paths in it start at `recipe_folder`.

    Raises:
        ModelError, DataError, UsageError: a model or data that a step could not use either, such
            as fewer texts than calibration needs, or a teacher that its student cannot learn from.
    """
    return _Planner(recipe, recipe_folder).plan()


class _Planner:
    def __init__(self, recipe: Recipe, recipe_folder: Path) -> None:
        self.recipe, self.recipe_folder = recipe, recipe_folder
        self.texts = PlannedTexts(recipe, recipe_folder)
        self.models: dict[str, ModelPlan] = {}
        self._caches: dict[str, PlannedTeacher] = {}
        """Cache → who answers it."""
        self._gflops: dict[str, float] = {}

    def plan(self) -> Plan:
        steps = tuple(self._step(name) for name in self.recipe.order)
        return Plan(self.recipe.name, steps, self.texts.notes)

    def _step(self, name: str) -> StepPlan:
        step = self.recipe.steps[name]
        if isinstance(step, TrainStep):
            return self._train(name, step)
        if isinstance(step, AnalyzeSettings):
            return self._analyze(name, step)
        if isinstance(step, QuantizeSettings):
            return self._quantize(name, step)
        if isinstance(step, ExportStep):
            return self._export(name, step)
        if isinstance(step, EvaluateStep):
            return self._evaluate(name, step)
        if isinstance(step, AugmentStep):
            return self._augment(name, step)
        if isinstance(step, CacheStep):
            return self._cache(name, step)
        return StepPlan(name, step.run, None, 0, RUNTIME_MIB, 1, REPORT_SECONDS)

    def _train(self, name: str, step: TrainStep) -> StepPlan:
        model = self._model(step.model, self.texts.head(step.data, step.objective), step.max_length)
        # Going on with another step's model, this one may cut texts elsewhere.
        model = replace(model, max_length=step.max_length)
        check_length(model.cost.model.config, step.max_length, f"{name}: the model")
        self.models[name] = model
        rows, tokens = self.texts.count(step.data, "train", model)
        validation_rows, _ = self.texts.count(step.data, "validation", model)
        steps = step.max_steps or max(1, round((step.epochs or 3) * rows / step.batch_size))
        teacher = self._teacher(name, step, model)
        forward = model.cost.flops(1, tokens)
        per_text = 3 * forward + (0 if teacher is None else teacher.flops(1, tokens))
        flops = steps * step.batch_size * per_text
        flops += step.evaluations * validation_rows * forward
        micro_batch = step.micro_batch_size or step.batch_size
        memory = 16 * model.cost.num_params + (0 if teacher is None else 4 * teacher.num_params)
        text_bytes = model.activation_bytes(step.max_length)
        memory += micro_batch * text_bytes
        precision = choose_precision(step.precision, torch.device("cpu")).name
        return StepPlan(
            name,
            step.run,
            model.cost.num_params,
            flops,
            RUNTIME_MIB + memory / MIB,
            model.size_mib + 2 * 12 * model.cost.num_params / MIB,
            flops / (TRAIN_SHARE * self._speed(precision)) + OPEN_SECONDS,
            texts_at_once=micro_batch,
            text_mib=text_bytes / MIB,
            lowered_by="micro_batch_size" if step.can_be_cut else "",
        )

    def _teacher(self, name: str, step: TrainStep, student: ModelPlan) -> Cost | None:
        """What asking the teacher costs; None: there is none, or a cache has its answers.

        Raises:
            ModelError: the student cannot learn from it.
        """
        if step.teacher is None:
            return None
        teacher = self._caches.get(step.teacher) or self._live(step.teacher)
        require_pair(name, step, self.texts, student, teacher)
        return None if step.teacher in self._caches else teacher.model.cost

    def _live(self, word: str) -> PlannedTeacher:
        model = self._model(word, None, 128)
        return PlannedTeacher(model, None if word in self.models else model.tokenizer_folder)

    def _augment(self, name: str, step: AugmentStep) -> StepPlan:
        """A row of a forward pass for every word that some copy replaces, about a token a word;
        three tensors of scores a row; of a made row about four bytes a token, a third packed."""
        model = self._model(step.model, None, step.max_length)
        rows, tokens = self.texts.count(step.data, "train", model)
        data = self.texts.loaded(step.data)
        self.texts.add(name, with_copies(data, step.copies, keep_labels=step.keep_labels))
        asked = 1 - (1 - step.probability) ** step.copies
        flops = round(asked * rows * tokens * model.cost.flops(1, tokens))
        scores = 3 * 4 * step.batch_tokens / tokens * model.cost.model.config.vocab_size
        memory = model.size_mib + scores / MIB
        speed = self._speed(choose_precision(step.precision, torch.device("cpu")).name)
        seconds = OPEN_SECONDS + flops / (FORWARD_SHARE * speed)
        disk = rows * step.copies * tokens * 4 / 3 / MIB
        return StepPlan(name, step.run, None, flops, RUNTIME_MIB + memory, disk, seconds)

    def _cache(self, name: str, step: CacheStep) -> StepPlan:
        """The teacher reads every row once."""
        teacher = self._live(step.teacher)
        kept = content_of(name, step, teacher.model)
        self._caches[name] = replace(teacher, cache=name, kept=kept)
        model = replace(teacher.model, max_length=step.max_length)
        rows, tokens = self.texts.count(step.data, "train", model)
        flops = rows * model.cost.flops(1, tokens)
        head = self.texts.head(step.data, step.objective)
        written = WORD_TOKENS if self.texts.has_classes(step.data) and head.predicts_words else None
        config = model.cost.model.config.to_dict()
        disk = cache_bytes(step, config, head.num_labels, rows, tokens, written) / MIB
        text_mib = model.activation_bytes(tokens) / MIB
        memory = RUNTIME_MIB + model.size_mib + step.batch_size * text_mib
        speed = self._speed(choose_precision(step.precision, torch.device("cpu")).name)
        seconds = OPEN_SECONDS + flops / (FORWARD_SHARE * speed)
        return StepPlan(
            *(name, step.run, None, flops, memory, disk, seconds),
            texts_at_once=step.batch_size,
            text_mib=text_mib,
            lowered_by="batch_size",
        )

    def _analyze(self, name: str, step: AnalyzeSettings) -> StepPlan:
        model = self._model(step.model, None, 128)
        watched, judged = study_passes(step, model.cost.model)
        flops, batch, text_mib = 0, 1, 0.0
        if watched and isinstance(step, TextStudy | HistogramsStep) and step.data is not None:
            wanted = step.calibration
            available = len(self.texts.loaded(step.data).split("train"))
            choose_examples(available, wanted.examples, self.recipe.seed, step.data)
            _, tokens = self.texts.count(step.data, "train", model)
            flops += watched * wanted.examples * model.cost.flops(1, tokens)
            batch = wanted.batch_size or BATCH_SIZE
            text_mib = model.activation_bytes(tokens) / MIB
        if judged:
            assert isinstance(step, JudgedStudy | DisablingStep), f"{step} names no rows that judge"
            rows, tokens = self.texts.count(step.data, "validation", model)
            flops += judged * min(rows, step.num_rows) * model.cost.flops(1, tokens)
        seconds = OPEN_SECONDS + flops / (FORWARD_SHARE * self._speed("fp32"))
        memory = RUNTIME_MIB + 3 * model.size_mib + batch * text_mib
        return StepPlan(
            *(name, step.run, None, flops, memory, 1, seconds),
            texts_at_once=batch,
            text_mib=text_mib,
        )

    def _quantize(self, name: str, step: QuantizeSettings) -> StepPlan:
        source = self._model(step.model, None, 128)
        bytes_per_param = mean_weight_bits(step, source.cost.model) / 8
        model = ModelPlan(source.cost, source.tokenizer_folder, bytes_per_param, source.max_length)
        self.models[name] = model
        data, wanted = step.calibration.data, step.calibration.examples
        choose_examples(len(self.texts.loaded(data).split("train")), wanted, self.recipe.seed, data)
        _, tokens = self.texts.count(data, "train", model)
        passes = text_passes(step, model.cost.model)
        flops = round(passes * wanted * model.cost.flops(1, tokens))
        training = self._training_flops(step, model)
        batch = step.calibration.batch_size or BATCH_SIZE
        text_mib = model.activation_bytes(tokens) / MIB
        memory = RUNTIME_MIB + 2 * source.size_mib + batch * text_mib
        speed = self._speed("fp32")
        seconds = OPEN_SECONDS + flops / (FORWARD_SHARE * speed) + training / (TRAIN_SHARE * speed)
        params, flops = model.cost.num_params, flops + training
        return StepPlan(
            *(name, step.run, params, flops, memory, model.size_mib, seconds),
            texts_at_once=batch,
            text_mib=text_mib,
        )

    def _training_flops(self, step: QuantizeSettings, model: ModelPlan) -> int:
        """Of quantization-aware training; 0 for a method that does not train."""
        passes = training_passes(step)
        if not isinstance(step, QatStep) or not passes:
            return 0
        rows, tokens = self.texts.count(step.data or step.calibration.data, "train", model)
        return round(passes * rows * model.cost.flops(1, tokens))

    def _export(self, name: str, step: ExportStep) -> StepPlan:
        model = self._model(step.model, None, 128)
        self.models[name] = model
        rows, tokens = step.parity.examples, model.max_length
        if data := step.data or data_of_model(step.model, self.recipe.model_dump()):
            there, tokens = self.texts.count(data, "validation", model)
            rows = min(rows, there)
        flops = 3 * rows * model.cost.flops(1, tokens)
        seconds = EXPORT_SECONDS + flops / (FORWARD_SHARE * self._speed("fp32"))
        memory = RUNTIME_MIB + 4 * model.cost.num_params * 4 / MIB
        return StepPlan(
            name, step.run, model.cost.num_params, flops, memory, model.size_mib, seconds
        )

    def _evaluate(self, name: str, step: EvaluateStep) -> StepPlan:
        models = [self._model(word, self.texts.head(step.data), 128) for word in step.models]
        flops = 0
        for model in models:
            rows, tokens = self.texts.judged(step.data, step.split, model)
            flops += rows * model.cost.flops(1, tokens)
            if step.speed is not None:
                calls = (step.speed.rounds + 1) * step.speed.calls
                flops += calls * sum(
                    model.cost.flops(batch, step.speed.tokens) for batch in step.speed.batch_sizes
                )
        memory = RUNTIME_MIB + 4 * sum(model.cost.num_params for model in models) / MIB
        seconds = OPEN_SECONDS * 2 * len(models) + flops / (FORWARD_SHARE * self._speed("fp32"))
        return StepPlan(name, step.run, None, flops, memory, 1, seconds)

    def _model(self, reference: ModelReference, head: Head | None, max_length: int) -> ModelPlan:
        """A model with the head that is asked for; None: with its own."""
        word = referenced_model(reference)
        if isinstance(reference, FromConfig):
            folder = self._tokenizer_folder(reference.tokenizer or "")
            return ModelPlan(cost_under(head, reference.config), folder, 4.0, max_length)
        if word in self.models:
            plan = self.models[word]
        else:
            folder = resolve_model(str(word), {}, self.recipe_folder)
            config = read_json(folder / "config.json")
            plan = ModelPlan(cost_under(head, config), folder, 4.0, max_length)
        if isinstance(reference, ChangedModel):
            smaller = cost_of(changed(plan.cost.model, reference))
            return ModelPlan(smaller, plan.tokenizer_folder, 4.0, max_length)
        return plan

    def _tokenizer_folder(self, word: str) -> Path:
        """Where a tokenizer lies now; that of a step is the one which the step itself was given."""
        if word in self.models:
            return self.models[word].tokenizer_folder
        return resolve_model(word, {}, self.recipe_folder)

    def _speed(self, precision: str) -> float:
        if precision not in self._gflops:
            self._gflops[precision] = measured_flops_per_s(precision)
        return self._gflops[precision]


def measured_flops_per_s(precision: str, seconds: float = 0.3) -> float:
    """Operations a second of a matrix product of a small model's shape, here and now."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left = torch.ones(1024, 384, dtype=dtype)
    right = torch.ones(384, 1536, dtype=dtype)
    torch.matmul(left, right)  # the first one packs and allocates
    products, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        torch.matmul(left, right)
        products += 1
    return 2 * left.numel() * right.shape[1] * products / elapsed


def expected_seconds(plan: Plan) -> Mapping[str, float]:
    """Step → seconds, for the time left of a whole run."""
    return {step.name: step.seconds for step in plan.steps}
