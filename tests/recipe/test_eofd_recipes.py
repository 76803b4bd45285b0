"""The recipes of EOFD's tables 8 to 16 hold the numbers that are printed there.

The tables stand here a second time, as in the paper: a column a task, one number for a whole row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from attar.analysis.config import DisablingStep, HistogramsStep, OutliersStep
from attar.distillation.config import AugmentStep
from attar.evaluation.config import EvaluateStep
from attar.losses.config import (
    AttentionMse,
    CrossEntropy,
    EmbeddingMse,
    Eofd,
    ForwardKl,
    HiddenMse,
    SoftCrossEntropy,
)
from attar.models.config import referenced_model
from attar.recipe.load import load_recipe
from attar.recipe.outcome.sweep import expand
from attar.recipe.schema import Recipe
from attar.training.config import TrainStep

EIGHT = "mnli qqp qnli sst2 cola rte mrpc stsb"
COPIES = {"cola": 30, "mnli": 10, "mrpc": 30, "sst2": 20, "qqp": 10, "qnli": 20, "rte": 30}
"""Of TinyBERT's augmentation, which the authors follow; none for STS-B."""


@dataclass(frozen=True)
class Table:
    """One table: rows in the paper's order, "a b c" for columns or one value for all."""

    recipe: str
    steps: str
    """How a recipe calls a column, with {} for its task."""
    model: str
    tasks: str
    learning_rate: str
    batch_size: str
    epochs: str
    warmup_ratio: str
    max_length: str
    weight_decay: str
    adam_epsilon: str
    hidden_ratio: str = ""
    from_mnli: str = ""


ONE_STEP = {"warmup_ratio": "0", "max_length": "128", "weight_decay": "0", "adam_epsilon": "1e-8"}
TWO_STEP = {
    "max_length": "128 128 128 64 64 128 128 128",
    "weight_decay": "1e-4",
    "adam_epsilon": "1e-6",
}
SIX, FOUR = "table_09_10_bert6", "table_11_12_bert4"
TABLES = {
    8: Table(
        recipe="table_08_bert_teachers",
        steps="{}",
        model="google-bert/bert-base-uncased",
        tasks=EIGHT,
        learning_rate="7e-5 7e-5 4e-5 5e-5 3e-5 3e-5 3.5e-5 2e-5",
        batch_size="256 256 256 256 256 256 64 16",
        epochs="3 3 6 6 40 30 50 3",
        from_mnli="rte mrpc",
        **ONE_STEP,
    ),
    9: Table(
        recipe=SIX,
        steps="{}_bert6_hidden",
        model="huawei-noah/TinyBERT_General_6L_768D",
        tasks=EIGHT,
        learning_rate="8e-5",
        batch_size="512",
        epochs="10 10 15 20 20 30 30 30",
        warmup_ratio="0.1",
        from_mnli="rte mrpc stsb",
        **TWO_STEP,
    ),
    10: Table(
        recipe=SIX,
        steps="{}_bert6",
        model="{}_bert6_hidden",
        tasks=EIGHT,
        learning_rate="3e-5",
        batch_size="512 512 512 512 512 512 64 512",
        epochs="3 3 6 9 20 20 40 50",
        warmup_ratio="0.3",
        **TWO_STEP,
    ),
    11: Table(
        recipe=FOUR,
        steps="{}_bert4_hidden",
        model="huawei-noah/TinyBERT_General_4L_312D",
        tasks=EIGHT,
        learning_rate="7e-5",
        batch_size="384",
        epochs="10 10 15 20 20 30 30 30",
        warmup_ratio="0.1",
        from_mnli="rte mrpc stsb",
        **TWO_STEP,
    ),
    12: Table(
        recipe=FOUR,
        steps="{}_bert4",
        model="{}_bert4_hidden",
        tasks=EIGHT,
        learning_rate="3e-5",
        batch_size="512 512 512 512 512 512 64 128",
        epochs="3 3 6 6 20 20 40 50",
        warmup_ratio="0.3",
        **TWO_STEP,
    ),
    13: Table(
        recipe="table_13_gpt2_teachers",
        steps="{}",
        model="openai-community/gpt2-medium",
        tasks="mnli qqp qnli cola",
        learning_rate="1e-4 2e-4 5e-5 1e-4",
        batch_size="512",
        epochs="3 6 6 9",
        **ONE_STEP,
    ),
    14: Table(
        recipe="table_14_gpt2",
        steps="{}_gpt2_eofd",
        model="openai-community/gpt2",
        tasks="mnli qqp qnli cola",
        learning_rate="7e-5",
        batch_size="64",
        epochs="9 9 9 12",
        hidden_ratio="1e-4 1e-4 1e-4 1e-5",
        **ONE_STEP,
    ),
    15: Table(
        recipe="table_15_t5_teachers",
        steps="{}",
        model="google-t5/t5-base",
        tasks="mnli qqp qnli sst2 cola",
        learning_rate="1.5e-4 4e-4 3e-4 6e-4 7e-4",
        batch_size="256 512 512 512 512",
        epochs="6 6 6 3 9",
        **ONE_STEP,
    ),
    16: Table(
        recipe="table_16_t5",
        steps="{}_t5_eofd",
        model="google-t5/t5-small",
        tasks="mnli qqp qnli sst2 cola",
        learning_rate="6e-4 6e-4 4e-4 3e-4 6e-4",
        batch_size="128",
        epochs="6 6 3 6 6",
        hidden_ratio="1e-4",
        **ONE_STEP,
    ),
}
COLUMNS = [(number, task) for number, table in TABLES.items() for task in table.tasks.split()]
CLASS_HEAD = "table_16_t5_class_head"
RECIPES = sorted({table.recipe for table in TABLES.values()})
TEACHERS = {SIX: 8, FOUR: 8, "table_14_gpt2": 13, "table_16_t5": 15}
"""A recipe of students → the table of its teachers."""


@cache
def recipe(name: str) -> Recipe:
    folder = Path(__file__).resolve().parents[2] / "recipes" / "eofd"
    return load_recipe(folder / f"{name}.toml")


def trained(number: int, task: str) -> TrainStep:
    """The training step that a column of a table describes."""
    table = TABLES[number]
    step = recipe(table.recipe).steps[table.steps.format(task)]
    assert isinstance(step, TrainStep)
    return step


def printed(number: int, task: str, row: str) -> float:
    """The number of a table's row in a task's column."""
    table = TABLES[number]
    columns, numbers = table.tasks.split(), getattr(table, row).split()
    return float(numbers[0] if len(numbers) == 1 else numbers[columns.index(task)])


def test_every_recipe_of_the_folder_is_a_table(repository: Path) -> None:
    found = sorted(path.stem for path in (repository / "recipes" / "eofd").glob("*.toml"))
    assert found == sorted([*RECIPES, CLASS_HEAD, "table_05_t5", "appendix_h_t5"])
    tasks = {number: set(recipe(table.recipe).data) for number, table in TABLES.items()}
    assert all(tasks[number] == set(table.tasks.split()) for number, table in TABLES.items())


@pytest.mark.parametrize(("number", "task"), COLUMNS)
def test_a_column_of_a_table_is_a_step_with_its_numbers(number: int, task: str) -> None:
    step = trained(number, task)
    for row in ("learning_rate", "batch_size", "epochs", "warmup_ratio", "max_length"):
        assert getattr(step, row) == printed(number, task, row), row
    assert step.weight_decay == printed(number, task, "weight_decay")
    assert step.adam_epsilon == printed(number, task, "adam_epsilon")
    assert (step.adam_beta1, step.adam_beta2) == (0.9, 0.999)
    assert (step.max_grad_norm, step.schedule, step.max_steps) == (1.0, "linear", None)
    read = task if task == "stsb" or number not in (9, 10, 11, 12) else f"{task}_augmented"
    assert (step.data, step.seed, recipe(TABLES[number].recipe).seed) == (read, None, 42)


@pytest.mark.parametrize(("number", "task"), COLUMNS)
def test_a_column_starts_where_the_paper_says(number: int, task: str) -> None:
    table, step = TABLES[number], trained(number, task)
    word = table.model.format(task)
    if task in table.from_mnli.split():
        word = {8: "mnli", 9: "mnli_bert6", 11: "mnli_bert4"}[number]
        assert getattr(step.model, "new_head", False)
    else:
        assert isinstance(step.model, str)
    assert referenced_model(step.model) == word
    is_teacher = number in (8, 13, 15)
    assert step.teacher == (None if is_teacher else task)


@pytest.mark.parametrize("name", TEACHERS)
def test_students_have_the_teachers_of_their_own_table(name: str) -> None:
    """The same settings to the letter, so that what one recipe has made the other reuses."""
    teachers = recipe(TABLES[TEACHERS[name]].recipe)
    assert recipe(name).name == teachers.name
    for task in recipe(name).data:
        assert recipe(name).steps[task] == teachers.steps[task]


@pytest.mark.parametrize("task", EIGHT.split())
@pytest.mark.parametrize(("hidden", "predictions"), [(9, 10), (11, 12)])
def test_two_steps_learn_hidden_states_and_then_predictions(
    hidden: int, predictions: int, task: str
) -> None:
    first, second = trained(hidden, task), trained(predictions, task)
    blocks = {9: 6, 11: 4}[hidden]
    states = {own: own * 12 // blocks for own in range(1, blocks + 1)}
    assert first.losses == (
        Eofd(power=0.5, weight=blocks, layer_map=states),
        EmbeddingMse(weight=1.0),
        AttentionMse(weight=blocks),
    ), "a sum over embeddings and blocks, as TinyBERT's; our terms are means"
    assert first.keep == "last", "no loss of step 1 moves the head: validation says nothing"
    [loss] = second.losses
    assert isinstance(loss, SoftCrossEntropy)
    assert loss.temperature == 1.0
    assert loss.score == ("gold" if task == "stsb" else "teacher")


@pytest.mark.parametrize("name", [SIX, FOUR])
def test_both_powers_are_tried(name: str) -> None:
    sweep = recipe(name).sweep
    assert sweep is not None
    label = name.rpartition("_")[2]
    assert sweep.steps == tuple(f"{task}_{label}_hidden" for task in EIGHT.split())
    assert sweep.settings == {"losses.0.power": (0.5, 1.0)}


@pytest.mark.parametrize("task", EIGHT.split())
@pytest.mark.parametrize("number", [9, 10, 11, 12])
def test_augmentation_has_its_copies_and_sts_b_has_none(number: int, task: str) -> None:
    step = trained(number, task)
    if task == "stsb":
        assert step.data == "stsb"
        return
    made = recipe(TABLES[number].recipe).steps[step.data]
    assert isinstance(made, AugmentStep)
    assert (made.data, made.copies, made.probability, made.top) == (task, COPIES[task], 0.4, 15)


@pytest.mark.parametrize(
    ("number", "task"), [column for column in COLUMNS if column[0] in (14, 16)]
)
def test_one_step_and_its_ablations_differ_in_the_hidden_loss_alone(number: int, task: str) -> None:
    table, whole = TABLES[number], trained(number, task)
    weight = printed(number, task, "hidden_ratio")
    predictions = ForwardKl(temperature=1.0)
    assert whole.losses == (predictions, Eofd(power=0.5, weight=weight))
    for ablation, losses in {
        "pred": (predictions,),
        "hidden": (predictions, HiddenMse(weight=weight)),
    }.items():
        name = table.steps.format(task).replace("eofd", ablation)
        step = recipe(table.recipe).steps[name]
        assert isinstance(step, TrainStep)
        assert step.losses == losses
        assert step == whole.model_copy(update={"losses": losses})


@pytest.mark.parametrize("task", TABLES[16].tasks.split())
def test_t5_reads_its_own_prefixes_and_writes_its_own_words(task: str) -> None:
    for step in (trained(15, task), trained(16, task)):
        assert step.objective == "text_to_text"
        assert step.template is not None
        assert step.template.startswith(f"{task} ")
        assert step.label_words is not None
    premise_hypothesis = "mnli hypothesis: no premise: yes"
    assert str(trained(16, "mnli").template).format("yes", "no") == premise_hypothesis
    assert str(trained(16, "sst2").template).format("a film") == "sst2 sentence: a film"


def test_t5_with_a_classification_head_differs_from_t5_with_words_in_that_alone() -> None:
    words, head = recipe("table_16_t5"), recipe(CLASS_HEAD)
    assert (words.data, words.seed, list(words.steps)) == (head.data, head.seed, list(head.steps))
    for name, step in words.steps.items():
        if isinstance(step, TrainStep):
            form = {"objective": "classification", "template": None, "label_words": None}
            step = step.model_copy(update=form)
        assert head.steps[name] == step


def test_table_5_disables_4_dimensions_of_t5_and_flan_t5_and_reads_the_classes_words() -> None:
    words = {"mnli": 3, "qnli": 2, "rte": 2, "sst2": 2}
    steps = [s for s in recipe("table_05_t5").steps.values() if isinstance(s, DisablingStep)]
    models = list(dict.fromkeys(step.model for step in steps))
    sizes = ("small", "base", "large")
    assert models[:3] == [f"google-t5/t5-{size}" for size in sizes]
    assert models[5:8] == [f"google/flan-t5-{size}" for size in sizes]
    assert [(s.model, s.data) for s in steps] == [(m, task) for m in models for task in words]
    for step in steps:
        assert (step.count, step.replacement, step.per_token) == (4, ("zero",), True)
        assert len(step.label_words or ()) == words[step.data]
        assert ("{1}" in str(step.template)) == (step.data != "sst2")


def test_appendix_h_reads_weights_and_its_figures_the_layers_in_print() -> None:
    steps = recipe("appendix_h_t5").steps.values()
    weights = [step for step in steps if isinstance(step, OutliersStep)]
    assert not any(step.activations or step.reads_texts for step in weights)
    shown = [(step.model, step.layers) for step in steps if isinstance(step, HistogramsStep)]
    deep = (0, 5, 10, 15, 20, 23)
    assert shown == [
        ("google-t5/t5-small", tuple(range(7))),
        ("google-t5/t5-large", deep),
        ("google-t5/t5-11b", deep),
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_no_step_trains_beside_the_tables(name: str) -> None:
    own = [number for number, table in TABLES.items() if table.recipe == name]
    columns = {TABLES[n].steps.format(task) for n in own for task in TABLES[n].tasks.split()}
    columns |= set(recipe(name).data)
    columns |= {c.replace("eofd", word) for c in columns for word in ("pred", "hidden")}
    steps = recipe(name).steps
    assert {step for step, found in steps.items() if isinstance(found, TrainStep)} <= columns


@pytest.mark.parametrize("name", RECIPES)
def test_every_task_is_judged_with_its_teacher_first(name: str) -> None:
    judged = [step for step in recipe(name).steps.values() if isinstance(step, EvaluateStep)]
    by_split = {
        split: [step for step in judged if step.split == split]
        for split in ("validation", "validation_mismatched")
    }
    assert sum(map(len, by_split.values())) == len(judged)
    assert [step.data for step in by_split["validation"]] == list(recipe(name).data)
    assert all(step.models[0] == step.data for step in judged)
    [mismatched] = by_split["validation_mismatched"]
    [matched] = [step for step in by_split["validation"] if step.data == "mnli"]
    assert mismatched == matched.model_copy(update={"split": "validation_mismatched"})


@pytest.mark.parametrize("name", ["glue_ptq", "glue_qat"])
def test_the_models_of_mnli_are_judged_on_both_of_its_sets(name: str, repository: Path) -> None:
    steps = load_recipe(repository / "recipes" / f"{name}.toml").steps.values()
    of_mnli = [step for step in steps if isinstance(step, EvaluateStep) and step.data == "mnli"]
    assert [step.split for step in of_mnli] == ["validation", "validation_mismatched"]
    assert of_mnli[0].models == of_mnli[1].models


def test_figure_5_and_table_5_are_studies_of_the_recipe_for_a_desk(repository: Path) -> None:
    expanded = expand(load_recipe(repository / "recipes" / "eofd_minilm.toml"))
    steps = expanded.recipe.steps.values()
    figures = [step for step in steps if isinstance(step, HistogramsStep)]
    assert [(figure.model, figure.compare_with) for figure in figures] == [
        (f"eofd_half@seed={seed}", f"hidden@seed={seed}") for seed in range(3)
    ], "of one seed, or they differ in more than the loss"
    [table] = [step for step in steps if isinstance(step, DisablingStep)]
    assert table.model == "teacher"


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_one_setting_turns_eofd_into_hidden_mse_or_into_predictions_alone(
    power: float, repository: Path
) -> None:
    file = repository / "recipes" / "eofd" / "table_14_gpt2.toml"
    changed = load_recipe(file, [f"steps.cola_gpt2_eofd.losses.1.power={power}"])
    step = changed.steps["cola_gpt2_eofd"]
    assert isinstance(step, TrainStep)
    assert step.losses[1] == Eofd(power=power, weight=1e-5)
    assert not any(isinstance(loss, CrossEntropy) for loss in step.losses)
