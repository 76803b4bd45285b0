"""Reading a recipe: every mistake at once, each with its place, and no file that breaks it."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar.errors import AttarError, RecipeError, UsageError
from attar.quantization.config import QuantizeStep
from attar.recipe.checking.mistakes import MAX_DEPTH, leaves
from attar.recipe.load import MAX_BYTES, NESTED, load_recipe, parse_recipe, without_meaning
from attar.recipe.schema import StepConfig
from engine_steps import RECIPE


def mistakes_in(text: str, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, overrides)
    return caught.value.mistakes


def changed(old: str, new: str) -> str:
    assert old in RECIPE
    return RECIPE.replace(old, new, 1)


def test_shipped_recipes_have_no_mistakes(repository: Path) -> None:
    shipped = sorted((repository / "recipes").rglob("*.toml"))
    assert {"demo", "glue_ptq", "glue_qat", "ablation"} <= {file.stem for file in shipped}
    for file in shipped:
        assert load_recipe(file).name


def test_a_recipe_is_read_as_it_is_written() -> None:
    recipe = parse_recipe(RECIPE)
    assert recipe.name == "small"
    assert recipe.seed == 3
    assert list(recipe.steps) == ["teacher", "student", "int8", "scores", "report"]
    assert recipe.steps["student"].model_dump(by_alias=True)["model"]["from"] == "teacher"


def test_all_mistakes_are_reported_at_once_each_with_its_place_and_line() -> None:
    text = (
        RECIPE.replace('name = "small"', 'name = "a/b"')
        .replace('method = "minmax"', 'method = "minmx"')
        .replace('teacher = "teacher"', 'teacher = "techer"\nlearning_rat = 1')
        .replace('run = "report"', 'run = "reprot"')
    )
    runs, methods = (
        ", ".join(dict.fromkeys(leaf.model_fields[name].default for leaf in leaves(union)))
        for name, union in (("run", get_args(StepConfig)[0]), ("method", QuantizeStep))
    )
    assert mistakes_in(text) == (
        "name (line 2): 'a/b' is not a valid name: use letters, digits, _ and -, beginning with a "
        "letter or digit",
        "steps.student.teacher (line 13): 'techer' is neither a step nor a folder "
        "(did you mean 'teacher'?)",
        "steps.student.learning_rat (line 14): unknown name (did you mean 'learning_rate'?)",
        "steps.int8.method (line 19): 'minmx' is unknown (did you mean 'minmax'?); known: "
        + methods,
        f"steps.report.run (line 26): 'reprot' is unknown (did you mean 'report'?); known: {runs}",
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed = 3", 'seed = "3"', "seed (line 3): should be a valid integer, got '3'"),
        ("seed = 3", "seed = true", "seed (line 3): should be a valid integer, got true"),
        ("seed = 3", "seed = -1", "should be greater than or equal to 0, got -1"),
        ("seed = 3", "sead = 3", "sead (line 3): unknown name (did you mean 'seed'?)"),
        ('method = "minmax"', "", "steps.int8 (line 15): 'method' is missing"),
        (
            'method = "minmax"',
            'metod = "minmax"',
            "steps.int8.metod (line 18): unknown name (did you mean 'method'?)",
        ),
        ("keep_blocks = [1]", "keep_blocks = [2, 1]", "distinct block numbers from 0"),
        ("keep_blocks = [1]", "keep_block = [1]", "steps.student.model.keep_block (line 12): unk"),
        (", keep_blocks = [1]", "", "changes nothing; give keep_blocks, hidden_size"),
        ("keep_blocks = [1]", "hidden_size = 0", "steps.student.model.hidden_size (line 12)"),
        ('calibration = { data = "docs" }', "", "steps.int8.calibration (line 15): missing"),
        ('name = "small"', "name = 2001-01-01", "name (line 2): 2001-01-01 is a date or time"),
        ("seed = 3", "seed = nan", "seed (line 3): nan is not a finite number"),
        ('source = "stdlib_docs"', 'source = "glue"', "data.docs.task (line 4): missing"),
        (
            "[steps.report]",
            "[steps.'re.port']",
            "steps.re.port (line 24): 're.port' is not a valid",
        ),
    ],
)
def test_a_mistake_says_place_got_and_allowed(old: str, new: str, said: str) -> None:
    found = mistakes_in(changed(old, new))
    assert any(said in mistake for mistake in found), found
    assert len(found) == 1, found


def test_a_value_that_fits_none_of_several_forms_is_one_mistake() -> None:
    [found] = mistakes_in(changed('source = "stdlib_docs"', 'source="files"\npath="x"\ntext=1'))
    assert found.startswith("data.docs.text (line 7): ")


def test_several_losses_are_counted_from_zero() -> None:
    losses = "losses = [{ kind = 'cross_entropy' }, { kind = 'forward_kl', weight = -1 }]"
    [found] = mistakes_in(changed('teacher = "teacher"', f'teacher = "teacher"\n{losses}'))
    assert found == (
        "steps.student.losses.1.weight (line 14): should be greater than or equal to 0, got -1"
    )


def test_what_is_not_toml_is_named_with_line_and_column() -> None:
    [found] = mistakes_in("name = 'a'\nseed = = 3")
    assert "not TOML" in found
    assert "line 2, column 8" in found


def test_a_folder_a_missing_file_and_a_wrong_encoding_are_said(tmp_path: Path) -> None:
    (tmp_path / "demo.toml").write_bytes(b"name = 'a'\n\nseed = '\xff'")
    with pytest.raises(RecipeError, match=r"line 3: byte 0xff is not UTF-8"):
        load_recipe(tmp_path / "demo.toml")
    with pytest.raises(UsageError, match=r"is a folder.*it holds demo\.toml"):
        load_recipe(tmp_path)
    with pytest.raises(UsageError, match=r"does not exist \(did you mean 'demo\.toml'\?\)"):
        load_recipe(tmp_path / "dmo.toml")


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_bytes(b"\xef\xbb\xbf" + RECIPE.replace("\n", "\r\n").encode())
    assert load_recipe(file) == parse_recipe(RECIPE)


def test_a_file_above_the_cap_is_refused_by_its_size(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE + "#" * (MAX_BYTES - len(RECIPE)))
    assert load_recipe(file)
    file.write_text(RECIPE + "#" * 10_000_000)
    with pytest.raises(UsageError, match=r"has 9\.5 MiB, but a recipe has at most 1 MiB"):
        load_recipe(file)


def test_depth_is_allowed_up_to_the_cap() -> None:
    content: object = 0
    for _ in range(MAX_DEPTH - 1):
        content = [content]
    assert without_meaning(content) == []
    assert without_meaning([[content]]) == [NESTED]


def test_a_name_too_deep_never_reaches_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time grows with the square of the depth."""
    monkeypatch.setattr("tomllib.loads", lambda text: pytest.fail("reached"))
    for text in ("a." * 20_000 + "a = 1", f"  [{'a . ' * 20_000}a]", f"[['a'.{'b.' * 99}c]]"):
        [found] = mistakes_in(text)
        assert found == "nested more than 64 deep"


def test_many_mistakes_are_counted_and_the_first_spelled_out() -> None:
    noise = "\n".join(f"noise{i} = {i}" for i in range(3000))
    found = mistakes_in(noise + RECIPE)
    assert len(found) == 51
    assert found[-1] == "and 2,950 more"


@given(st.text(max_size=60) | st.sampled_from([RECIPE[:n] for n in range(0, len(RECIPE), 7)]))
def test_no_text_is_answered_with_anything_but_a_mistake(text: str) -> None:
    try:
        parse_recipe(text)
    except AttarError as error:
        assert error.exit_code == 2


@pytest.mark.parametrize(
    "states", ["[0, 2, 4, 6]", '"uniform:3"', "{ encoder = [0, 6] }"], ids=("list", "word", "table")
)
def test_a_cache_is_asked_for_hidden_states_in_each_of_its_forms(states: str) -> None:
    table = '[steps.kept]\nrun = "cache"\nteacher = "teacher"\ndata = "docs"\n'
    recipe = parse_recipe(RECIPE + "\n" + table + f"hidden_states = {states}\n")
    assert recipe.steps["kept"]
