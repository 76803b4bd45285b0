"""A sweep: which steps are copied, what their copies are called and read, and what cannot vary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attar.errors import GateMissedError, RecipeError
from attar.recipe.load import parse_recipe
from attar.recipe.outcome.sweep import expand
from attar.report.sections.seed_comparisons import method_and_seed
from engine_steps import RECIPE, run_small

SEEDS = '[sweep]\nsteps = ["student"]\nseed = [0, 1]\n'


def expanded(sweep: str) -> dict[str, object]:
    return dict(expand(parse_recipe(RECIPE + sweep)).recipe.steps)


def test_without_a_sweep_nothing_changes() -> None:
    recipe = parse_recipe(RECIPE)
    assert expand(recipe).recipe is recipe
    assert expand(recipe).multiplied == {}


def test_named_steps_and_all_that_depends_on_them_are_copied_and_reports_are_not() -> None:
    assert list(expanded(SEEDS)) == [
        "teacher",
        "student@seed=0",
        "student@seed=1",
        "int8@seed=0",
        "int8@seed=1",
        "scores@seed=0",
        "scores@seed=1",
        "report",
    ]


def test_copies_read_the_copies_they_belong_to() -> None:
    steps = expanded(SEEDS)
    assert steps["int8@seed=1"].model == "student@seed=1"  # type: ignore[attr-defined]
    scores = steps["scores@seed=1"]
    assert scores.models == ("teacher", "student@seed=1", "int8@seed=1")  # type: ignore[attr-defined]
    student = steps["student@seed=1"]
    assert student.seed == 1  # type: ignore[attr-defined]
    assert student.model.source == "teacher"  # type: ignore[attr-defined]


def test_several_settings_make_every_combination() -> None:
    sweep = '[sweep]\nsteps = ["student"]\nseed = [0, 1]\nlearning_rate = [1e-3, 1e-4, 1e-5]\n'
    copies = [name for name in expanded(sweep) if name.startswith("student")]
    assert len(copies) == 6
    assert "student@seed=1,learning_rate=1e-05" in copies


def test_a_step_is_copied_only_for_settings_that_reach_it() -> None:
    sweep = (
        '[sweep]\nsteps = ["student", "int8"]\nstudent.seed = [0, 1]\nint8.weight_bits = [8, 4]\n'
    )
    names = list(expanded(sweep))
    assert [n for n in names if n.startswith("student")] == ["student@seed=0", "student@seed=1"]
    assert len([n for n in names if n.startswith("int8")]) == 4


def test_a_nested_setting_and_a_method_can_vary() -> None:
    methods = 'method = ["minmax", "percentile"]'
    sweep = f'[sweep]\nsteps = ["int8"]\ncalibration.examples = [64, 256]\n{methods}\n'
    steps = expanded(sweep)
    copy = steps["int8@calibration.examples=64,method=percentile"]
    assert copy.calibration.examples == 64  # type: ignore[attr-defined]
    assert copy.method == "percentile"  # type: ignore[attr-defined]


def test_a_label_that_cannot_name_a_folder_becomes_one_that_can() -> None:
    sweep = (
        '[sweep]\nsteps = ["student"]\nlosses = [[{kind="cross_entropy"}], [{kind="forward_kl"}]]\n'
    )
    copies = [name for name in expanded(sweep) if name.startswith("student")]
    assert len(set(copies)) == 2
    assert not any(set(copy) & set('/ "{}[]') for copy in copies)


def test_copies_that_differ_in_their_seed_alone_have_names_that_differ_in_it_alone() -> None:
    """Whatever else is swept: methods are found by their names."""
    same = 'kind = "forward_kl", temperature = 1.0'
    losses = f"[{{ {same}, weight = 0.25 }}], [{{ {same}, weight = 0.5 }}]"
    sweep = f'[sweep]\nsteps = ["student"]\nlosses = [{losses}]\nseed = [0, 1]\n'
    copies = [name for name in expanded(sweep) if name.startswith("student")]
    assert len(set(copies)) == 4
    assert len({method_and_seed(copy)[0] for copy in copies}) == 2
    assert {method_and_seed(copy)[1] for copy in copies} == {"seed=0", "seed=1"}


LONG = (
    "learning_rate = [1e-3, 1e-4]\nadam_beta1 = [0.91]\nadam_beta2 = [0.9991]\n"
    "adam_epsilon = [1e-8]\nweight_decay = [0.0125]\nwarmup_ratio = [0.0625]\n"
)
SHORTER = LONG.replace("warmup_ratio = [0.0625]\n", "")
"""Its label has 93 characters, so that a seed of one digit fits and one of two does not."""


@pytest.mark.parametrize("settings", [LONG + "{}", "{}" + LONG, SHORTER + "{}"])
def test_a_long_label_is_cut_but_never_in_its_seed(settings: str) -> None:
    seeds = "seed = [1, 12, 123456789]\n"
    names = expanded('[sweep]\nsteps = ["student"]\n' + settings.format(seeds))
    copies = [name for name in names if name.startswith("student")]
    assert len(set(copies)) == 6
    assert len({method_and_seed(copy)[0] for copy in copies}) == 2
    assert {method_and_seed(copy)[1] for copy in copies} == {"seed=1", "seed=12", "seed=123456789"}


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ('steps = ["studnt"]\nseed = [0]', "no step 'studnt' (did you mean 'student'?)"),
        ('steps = ["report"]\nseed = [0]', "is a report, which already shows every copy"),
        ('steps = ["student"]\nsead = [0]', "sead: unknown name (did you mean 'seed'?)"),
        ('steps = ["student"]\nseed = ["0"]', "seed: should be a valid integer, got '0'"),
        ('steps = ["student"]\nseed = [0, 0]', "a value is listed twice"),
        ('steps = ["student"]\nseed = []', "an empty list leaves nothing to run"),
        ('steps = ["student"]\nseed = 1', "should be a valid array, got 1"),
        ('steps = ["student"]\nrun = ["train"]', "`run` cannot vary"),
        (
            'steps = ["student"]\nteacher = ["int8"]',
            "'teacher' names a model, and references between",
        ),
        ('steps = ["student"]\ndata = ["dcs"]', "no [data.dcs] (did you mean 'docs'?)"),
        ('steps = ["student"]\nmodel.keep_blocks.5 = [1]', "no setting 'model.keep_blocks.5'"),
        ('steps = ["student"]\nlosses.0.weight = [1.0]', "losses: should be a valid array"),
        ('steps = ["student"]', "should have at least 1 item"),
        ("steps = []\nseed = [0]", "should have at least 1 item"),
        (f'steps = ["student"]\nseed = {list(range(1001))}', "1,001 combinations; at most 1,000"),
    ],
)
def test_what_cannot_vary_is_a_mistake_before_anything_runs(sweep: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(f"{RECIPE}[sweep]\n{sweep}\n")
    assert said in "\n".join(caught.value.mistakes)
    assert "sweep" in caught.value.mistakes[0]


def test_every_copy_has_its_folder_and_the_statistics_are_written(tmp_path: Path) -> None:
    summary = run_small(tmp_path / "small", RECIPE + SEEDS)
    accuracies = [
        summary.metrics(f"scores@seed={seed}")["models"][f"int8@seed={seed}"]["accuracy"]["value"]
        for seed in (0, 1)
    ]
    assert accuracies[0] != accuracies[1]
    written = json.loads((tmp_path / "small" / "sweep.json").read_text())["steps"]
    assert set(written) == {"student", "int8", "scores"}
    found = written["scores"]["metrics"]["models"]["int8"]["accuracy"]
    assert found["mean"] == pytest.approx(sum(accuracies) / 2)
    assert found["max"] == max(accuracies)
    assert found["n"] == 2
    assert written["scores"]["runs"] == ["scores@seed=0", "scores@seed=1"]
    page = (tmp_path / "small" / "report" / "index.html").read_text()
    assert page.endswith("scores@seed=0 scores@seed=1 and the sweep")


def test_methods_over_seeds_are_compared_in_the_summary_and_in_the_sweep_file(
    tmp_path: Path,
) -> None:
    summary = run_small(tmp_path / "small", RECIPE + SEEDS.replace("[0, 1]", "[0, 1, 2]"))
    [comparison] = summary.comparisons
    assert (comparison.metric, comparison.first) == ("accuracy", "student")
    [_, int8] = comparison.methods
    assert int8.against_first is not None
    assert int8.against_first.n == 3
    for seed in range(3):
        models = summary.metrics(f"scores@seed={seed}")["models"]
        value = models[f"int8@seed={seed}"]["accuracy"]["value"]
        assert int8.scores[f"seed={seed}"] == value
    written = json.loads((tmp_path / "small" / "sweep.json").read_text())["comparisons"]
    assert written == json.loads(json.dumps(summary.as_json()["comparisons"]))
    assert written[0]["methods"][1]["against_first"]["p"] == int8.against_first.p
    assert f"scores: {int8.sentence}" in summary.text().splitlines()


def test_without_a_sweep_nothing_is_compared_over_seeds(tmp_path: Path) -> None:
    summary = run_small(tmp_path / "small")
    assert (summary.comparisons, summary.as_json()["comparisons"]) == ((), [])


def test_gates_look_at_means(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    run_small(folder, RECIPE + SEEDS)
    written = json.loads((folder / "sweep.json").read_text())["steps"]
    mean = written["scores"]["metrics"]["models"]["int8"]["accuracy"]["mean"]
    gate = '[[gates]]\nmetric = "scores.int8.accuracy"\nat_least = {}\n'
    assert run_small(folder, RECIPE + SEEDS + gate.format(mean - 1e-6)).gates[0].passed
    with pytest.raises(GateMissedError):
        run_small(folder, RECIPE + SEEDS + gate.format(mean + 1e-6))


def test_widening_a_sweep_makes_only_the_new_copies(tmp_path: Path) -> None:
    run_small(tmp_path / "small", RECIPE + SEEDS)
    wider = run_small(tmp_path / "small", RECIPE + SEEDS.replace("[0, 1]", "[0, 1, 2]"))
    assert [step.name for step in wider.steps if not step.reused] == [
        "student@seed=2",
        "int8@seed=2",
        "scores@seed=2",
        "report",
    ]
