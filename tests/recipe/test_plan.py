"""A plan says before a run what the run will be: its parameters exactly, its work by its laws."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path

import pytest
import transformers

import language_runs
import tiny
import training_runs
from attar import cli
from attar.artifacts import read_json, read_result
from attar.data.packing import token_blocks
from attar.errors import DataError, ModelError, RecipeError, UsageError
from attar.models.cost import Cost
from attar.models.structure.families import positions_of
from attar.planning import measured_flops_per_s
from attar.progress import Progress
from attar.quantization.calibration.calibrate import choose_examples
from attar.recipe.load import load_recipe
from attar.recipe.plan import Plan, notes_of, plan_recipe
from attar.recipe.run import run_recipe
from attar.step import StepPlan
from tiny_recipe import STEPS, TinyRun, write

SPEED = 1e9
SWEEP = 'sweep={ steps = ["student"], seed = [0, 1, 2] }'


@pytest.fixture(autouse=True)
def _known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this machine only the speed is measured; no law here is about it."""
    monkeypatch.setattr("attar.planning.measured_flops_per_s", lambda *asked: SPEED)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("plan"))


def planned(recipe: Path, *overrides: str) -> Plan:
    return plan_recipe(load_recipe(recipe, overrides), recipe.parent)


def without(recipe: Path, line: str) -> Path:
    """The recipe with this line left out wherever it stands, so that a default is taken."""
    other = recipe.with_name("other.toml")
    other.write_text(recipe.read_text().replace(line, ""))
    return other


def flops(recipe: Path, step: str, *overrides: str) -> int:
    return next(s.flops for s in planned(recipe, *overrides).steps if s.name == step)


def test_planned_parameters_are_those_of_the_artifacts(tiny_run: TinyRun) -> None:
    plan = planned(tiny_run.recipe)
    assert tuple(step.name for step in plan.steps) == STEPS
    params = {step.name: step.num_params for step in plan.steps}
    for name in ("teacher", "student", "deploy", "deploy_ort"):
        assert params[name] == read_result(tiny_run.folder / name).metrics["num_params"]
    assert params["int8"] == params["student"]
    assert params["scores"] is None


def test_work_grows_linearly_with_steps_and_a_teacher_costs_a_forward_pass_more(
    recipe: Path,
) -> None:
    for step in ("teacher", "student"):
        two, four, eight = (flops(recipe, step, f"steps.{step}.max_steps={n}") for n in (2, 4, 8))
        assert eight - four == 2 * (four - two) > 0
    alone = "steps.student.model=bert"
    taught = flops(recipe, "student", alone, "steps.student.evaluations=1")
    teacher = flops(recipe, "teacher")
    forward = (flops(recipe, "teacher", "steps.teacher.evaluations=2") - teacher) / 24  # rows
    assert taught - teacher == pytest.approx(2 * 8 * forward)  # steps · texts


def test_an_epoch_is_as_many_steps_as_its_batches(tmp_path: Path) -> None:
    recipe = write(tmp_path)
    recipe.write_text(recipe.read_text().replace("max_steps = 2\n", "epochs = 2\n"))
    epochs = flops(recipe, "teacher")
    assert epochs == flops(recipe, "teacher", "steps.teacher.max_steps=12")


def test_a_student_of_half_the_blocks_costs_less_in_every_way(recipe: Path) -> None:
    half, whole = (
        {step.name: step for step in planned(recipe, f"steps.student.model.keep_blocks={b}").steps}
        for b in ("[1]", "[0, 1]")
    )
    assert whole["student"].num_params == whole["teacher"].num_params
    for name in ("student", "int8", "deploy"):
        small, big = half[name], whole[name]
        assert small.num_params is not None
        assert big.num_params is not None
        assert small.num_params < big.num_params
        assert small.flops < big.flops
        assert small.memory_mib < big.memory_mib
        assert small.disk_mib < big.disk_mib
        assert small.seconds < big.seconds
    assert half["teacher"] == whole["teacher"]


def test_fewer_bits_take_less_disk_and_more_texts_more_work(recipe: Path) -> None:
    eight, four = (
        {step.name: step for step in planned(recipe, f"steps.int8.weight_bits={bits}").steps}
        for bits in (8, 4)
    )
    assert eight["int8"].disk_mib == 2 * four["int8"].disk_mib
    calibrated = [flops(recipe, "int8", f"steps.int8.calibration.examples={n}") for n in (8, 16)]
    assert calibrated[1] == 2 * calibrated[0]
    assert flops(recipe, "scores", "steps.scores.speed.calls=2") > flops(recipe, "scores")
    assert flops(recipe, "scores", "steps.scores.speed=false") < flops(recipe, "scores")


def test_training_of_the_quantized_model_is_planned_by_its_epochs(recipe: Path) -> None:
    trained = ("steps.int8.method=lsq", "steps.int8.start=minmax")
    one, two, four = (flops(recipe, "int8", *trained, f"steps.int8.epochs={n}") for n in (1, 2, 4))
    assert four - two == pytest.approx(2 * (two - one))
    assert two > one > 0


def test_a_step_that_goes_on_with_a_model_cuts_texts_where_it_says_itself(recipe: Path) -> None:
    """Not where the step that made the model did."""
    on = "steps.student.model=teacher"
    short, long = (flops(recipe, "student", on, f"steps.student.max_length={n}") for n in (8, 24))
    assert short < long


def test_memory_and_time_follow_from_what_is_trained(recipe: Path) -> None:
    plan = planned(recipe)
    total = plan.as_json()
    assert total["seconds"] == plan.seconds == sum(step.seconds for step in plan.steps)
    assert total["memory_mib"] == max(step.memory_mib for step in plan.steps)
    assert [step.name for step in plan.steps] == list(STEPS)
    small, large = (
        planned(recipe, f"steps.teacher.micro_batch_size={n}").steps[0].memory_mib for n in (2, 8)
    )
    assert small < large


def test_a_model_from_a_config_is_planned_without_its_weights(recipe: Path) -> None:
    config = json.loads((recipe.parent / "bert" / "config.json").read_text())
    shape = {k: config[k] for k in ("vocab_size", "hidden_size", "num_attention_heads")}
    shape |= {"model_type": "bert", "num_hidden_layers": 2, "intermediate_size": 64}
    fields = ", ".join(f"{k} = {json.dumps(v)}" for k, v in shape.items())
    table = f'{{ config = {{ {fields}, max_position_embeddings = 64 }}, tokenizer = "bert" }}'
    made = planned(recipe, f"steps.teacher.model={table}").steps[0]
    assert made.num_params == planned(recipe).steps[0].num_params


def test_the_table_has_a_line_a_step_and_the_total(recipe: Path) -> None:
    plan = planned(recipe)
    head, *lines, total = plan.text().splitlines()
    rows, meanings = lines[: len(STEPS)], lines[len(STEPS) :]
    assert len({len(line) for line in (head, *rows)}) == 1
    assert [row.split()[0] for row in rows] == list(STEPS)
    assert total.startswith("in total about ")
    explained = ["passes", "steps", "TFLOP", "training", "by 6·N"]
    assert [re.split(r"  +", line)[1] for line in meanings] == explained
    assert [name for name in explained if name in re.split(r"  +", head)] == explained


def test_the_command_plans_every_copy_of_a_sweep(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["attar", "plan", str(recipe), "--json", "--set", SWEEP]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    plan = json.loads(capsys.readouterr().out)
    names = [step["name"] for step in plan["steps"]]
    assert [n for n in names if n.startswith("student")] == [f"student@seed={s}" for s in range(3)]
    assert names.count("teacher") == names.count("report") == 1
    assert len(names) == 1 + 3 * 5 + 1


def test_the_demo_is_planned_with_nothing_from_outside(repository: Path) -> None:
    plan = planned(repository / "recipes" / "demo.toml", "data.docs.train_rows=300")
    params = {step.name: step.num_params for step in plan.steps}
    assert params["teacher"] is not None
    assert params["student"] is not None
    # MiniLM-L6 has 22.7 M parameters; three of its six blocks have 1.77 M each.
    assert params["teacher"] == pytest.approx(22.7e6, rel=0.01)
    assert params["teacher"] - params["student"] == pytest.approx(3 * 1.774e6, rel=0.01)


@pytest.mark.parametrize("task", ["mrpc", "sst2"])
def test_recipes_of_public_data_are_planned(task: str, repository: Path, shared_data: Path) -> None:
    path = f"data.{task}.path={json.dumps(str(shared_data))}"
    rows = f"data.{task}.train_rows=300"
    plan = planned(repository / "recipes" / f"{task}.toml", path, rows)
    assert [step.run for step in plan.steps].count("train") == 2
    assert plan.seconds > 0


def test_the_speed_of_this_machine_is_a_number_of_operations() -> None:
    assert measured_flops_per_s("fp32", seconds=0.01) > 1e8  # a wristwatch has more


def test_too_few_calibration_examples_are_found_before_anything_is_trained(recipe: Path) -> None:
    with pytest.raises(DataError) as told:
        planned(recipe, "steps.int8.calibration.examples=5000")
    rows = re.search(r"has (\d+) training rows", str(told.value))
    assert rows is not None
    with pytest.raises(DataError) as of_the_step:
        choose_examples(int(rows[1]), 5000, 0, "films")
    assert str(told.value) == str(of_the_step.value)


def test_blocks_that_a_model_does_not_have_stop_a_run_before_its_first_step(
    recipe: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="9"):
        run_recipe(recipe, overrides=["steps.student.model.keep_blocks=[9]"], out=tmp_path)
    assert not (tmp_path / "tiny" / "teacher").exists()
    quiet = ["steps.int8.calibration.examples=5000"]
    with pytest.raises(DataError, match="calibration needs 5000 examples"):
        run_recipe(recipe, overrides=quiet, out=tmp_path, quiet=True)
    assert not (tmp_path / "tiny" / "teacher").exists()


def test_made_rows_are_planned_and_trained_on(tmp_path: Path) -> None:
    recipe = write(tmp_path)
    tiny.write_tiny_masked_lm(tmp_path / "lm")
    recipe.write_text(recipe.read_text().replace("max_steps = 2\n", "epochs = 1\n"))
    made = 'steps.more={ run = "augment", model = "lm", data = "films", max_length = 40, '
    made += "keep_labels = true }"
    with_made = (made, 'steps.teacher.data="more"', "steps.more.copies=3")
    trained = flops(recipe, "teacher") - flops(recipe, "teacher", "steps.teacher.epochs=1e-9")
    more = flops(recipe, "teacher", *with_made) - flops(recipe, "teacher")
    assert more == pytest.approx(3 * trained, rel=0.5)  # 3 copies of each row
    [one, many] = (flops(recipe, "more", made, f"steps.more.copies={n}") for n in (1, 100))
    assert one == pytest.approx(0.4 * many, rel=1e-7)


def test_a_tokenizer_may_be_that_of_a_step_which_has_not_run(recipe: Path) -> None:
    config = json.loads((recipe.parent / "bert" / "config.json").read_text())
    fields = ", ".join(
        f"{name} = {json.dumps(config[name])}"
        for name in ("model_type", "vocab_size", "hidden_size", "num_attention_heads")
    )
    of_step, of_folder = (
        planned(
            recipe,
            f"steps.student.model={{ config = {{ {fields}, num_hidden_layers = 1 }}, "
            f'tokenizer = "{word}" }}',
        )
        for word in ("teacher", "bert")
    )
    assert of_step == of_folder


LANGUAGE = """
name = "language"

[data.text]
source = "files"
path = "text"
text = "text"
objective = "causal_lm"

[steps.writer]
run = "train"
model = "gpt"
data = "text"
epochs = 1
batch_size = 1
max_length = 16
evaluations = 1

[steps.answers]
run = "cache"
teacher = "writer"
data = "text"
max_length = 16
distribution = "dense"
"""


def write_language(folder: Path, family: str, text: str) -> tuple[Path, dict[str, object]]:
    """A recipe whose model is random weights of a family; the recipe and the model's config."""
    language_runs.write_running_text(folder / "text")
    reference = language_runs.model_config(folder / "words", family)
    fields = ", ".join(f"{k} = {json.dumps(v)}" for k, v in reference["config"].items() if v != {})
    table = f'{{ config = {{ {fields} }}, tokenizer = "words" }}'
    recipe = folder / "language.toml"
    recipe.write_text(text.replace('"gpt"', table))
    return recipe, reference["config"]


def test_running_text_is_planned_in_blocks_under_a_language_head(tmp_path: Path) -> None:
    """Rows are blocks, not documents; every token is predicted over the whole vocabulary."""
    recipe, config = write_language(tmp_path, "gpt2", LANGUAGE)
    lines = (tmp_path / "text" / "train.jsonl").read_text().splitlines()
    texts = [(json.loads(line)["text"],) for line in lines]
    blocks = len(token_blocks(tmp_path / "words", texts, 16, "train").encoded)
    assert blocks > len(texts)
    steps = {step.name: step for step in planned(recipe).steps}
    width = config["vocab_size"]
    assert steps["answers"].disk_mib * 2**20 == blocks * 16 * width * 4  # type: ignore[operator]
    config_of_it = transformers.GPT2Config(**config)  # type: ignore[arg-type]
    cost = Cost(transformers.GPT2LMHeadModel(config_of_it))
    assert steps["writer"].num_params == cost.num_params
    assert steps["answers"].flops == blocks * cost.flops(1, 16)


def test_classes_as_words_are_planned_under_a_language_head(tmp_path: Path) -> None:
    films = LANGUAGE.replace('objective = "causal_lm"\n', "").replace(
        'data = "text"\n', 'data = "text"\nobjective = "text_to_text"\n'
    )
    recipe, config = write_language(tmp_path, "t5", films)
    training_runs.write_films(tmp_path / "text")
    steps = {step.name: step for step in planned(recipe).steps}
    config_of_it = transformers.T5Config(**config)  # type: ignore[arg-type]
    made = transformers.T5ForConditionalGeneration(config_of_it)
    assert steps["writer"].num_params == Cost(made).num_params
    logits = 48 * 4 * config["vocab_size"] * 4  # type: ignore[operator]  # rows · tokens of a word
    assert steps["answers"].disk_mib * 2**20 == logits


def test_a_text_and_what_is_written_to_it_are_planned_as_they_are_trained(tmp_path: Path) -> None:
    """A decoder reads the word of a class, not as many tokens as the encoder."""
    films, _, _ = LANGUAGE.replace('objective = "causal_lm"\n', "").partition("[steps.answers]")
    films = films.replace('data = "text"\n', 'data = "text"\nobjective = "text_to_text"\n')
    recipe, _ = write_language(tmp_path, "t5", films)
    training_runs.write_films(tmp_path / "text")
    [step] = planned(recipe).steps
    done = read_result(run_recipe(recipe, out=tmp_path / "runs", quiet=True).folder / "writer")
    assert step.training is not None
    assert (step.training.all, step.training.non_embedding) == (
        done.metrics["flops"],
        done.metrics["flops_non_embedding"],
    )
    shares = re.fullmatch(r"of the student's FLOPs: encoder (\d+)%, decoder (\d+)%, .*", step.note)
    assert shares is not None and int(shares[1]) > int(shares[2]) > 0


def test_a_plan_says_which_rows_its_data_leaves_out(tmp_path: Path) -> None:
    recipe = write(tmp_path)
    with (tmp_path / "films" / "validation.jsonl").open("a") as stream:
        stream.write('{"text": "a film", "label": "neutral"}\n')
    plan = planned(recipe, "data.films.max_set_aside=0.1")
    note = "data 'films', split 'validation': set aside 1 × unknown label 'neutral'"
    assert plan.as_json()["notes"] == [note]
    assert plan.text().endswith(f"note: {note}")


def test_texts_longer_than_the_models_positions_stop_the_plan_as_they_stop_the_run(
    recipe: Path,
) -> None:
    with pytest.raises(RecipeError, match=r"teacher.max_length.*is 4096, and 'bert' has 64 pos"):
        planned(recipe, "steps.teacher.max_length=4096")
    with pytest.raises(ModelError, match=r"teacher: the model has 64 positions, max_length is 128"):
        planned(without(recipe, "max_length = 24\n"))


def test_an_export_compares_no_more_texts_than_there_are(recipe: Path) -> None:
    some, more, all_there = (
        flops(recipe, "deploy", f"steps.deploy.parity.examples={count}")
        for count in (4, 8, 1_000_000)
    )
    assert more == 2 * some
    assert all_there < 1000 * some


def test_texts_that_a_model_cannot_be_timed_with_are_refused_before_the_run(
    tmp_path: Path,
) -> None:
    """RoBERTa counts its positions from 2, so a table of 66 has room for 64 tokens."""
    recipe = write(tmp_path)
    tiny.tiny_config("roberta").save_pretrained(tmp_path / "roberta")
    longest = positions_of(read_json(tmp_path / "roberta" / "config.json"))
    assert longest is not None
    one_more = f"steps.scores.speed.tokens={longest + 1}"
    models = "steps.scores.models=['roberta']"
    with pytest.raises(RecipeError, match=rf"speed.tokens.*'roberta' has {longest} positions"):
        planned(recipe, models, one_more)
    with pytest.raises(UsageError, match=r"texts of 128 tokens .* the model 'teacher' has 64 pos"):
        planned(recipe, "steps.scores.speed={}")


def test_runs_of_a_sweep_that_say_the_same_say_it_once() -> None:
    said = {"base@seed=0": "A", "base@seed=1": "A", "base@seed=2": "B", "other": "A", "quiet": ""}
    nothing = {"memory_mib": 0.0, "disk_mib": 0.0, "seconds": 0.0}
    plans = [StepPlan(name=name, run="train", note=n, **nothing) for name, n in said.items()]
    assert notes_of(plans) == ["base (2 runs): A", "base@seed=2: B", "other: A"]


def test_a_plan_says_what_it_reads_and_what_is_in_it(tmp_path: Path) -> None:
    recipe, said = write(tmp_path), StringIO()
    plan = plan_recipe(load_recipe(recipe), recipe.parent, progress=Progress(said))
    assert said.getvalue().startswith("reading data 'films'\n")
    assert plan.text().startswith("data 'films'\n  split ")
    [found] = plan.as_json()["data"]
    assert (found["unit"], found["splits"]["train"]["rows"]) == ("tokens", 48)
