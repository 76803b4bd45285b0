"""A study is asked for by its word; what it does not know is a mistake that names what it knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from attar.analysis.config import MOVED
from attar.errors import RecipeError
from attar.recipe.load import parse_recipe
from attar.recipe.steps import as_table

STEP = """
name = "a"
[data.docs]
source = "stdlib_docs"
[steps.why]
run = "analyze"
model = "demo:minilm-l6"
"""


def mistakes(lines: str) -> str:
    with pytest.raises(RecipeError) as told:
        parse_recipe(STEP + lines)
    return str(told.value)


def test_without_a_study_outliers_are_meant() -> None:
    step = parse_recipe(STEP + 'data = "docs"\ncriterion = "activation_std"').steps["why"]
    assert as_table(step)["study"] == "outliers"


def test_a_wrong_word_is_told_with_a_near_one_at_its_place() -> None:
    told = mistakes('data = "docs"\nstudy = "site_cosin"')
    assert "steps.why.study (line 9): 'site_cosin' is unknown" in told
    assert "did you mean 'site_cosine'?" in told
    told = mistakes('data = "docs"\nstudy = "site_cosine"\nbit = 4')
    assert "steps.why.bit" in told
    assert "did you mean 'bits'?" in told
    assert "steps.why.criterion" in mistakes('data = "docs"\ncriterion = "gamma"')
    assert "steps.why.study" in mistakes('data = "docs"\nstudy = 3')


def test_a_kind_of_site_that_no_model_has_is_told_before_anything_runs() -> None:
    told = mistakes('data = "docs"\nstudy = "clipping"\nkinds = ["mha_nrom"]')
    assert "steps.why.kinds" in told
    assert "did you mean 'mha_norm'?" in told


def test_a_former_name_of_a_kind_still_works() -> None:
    lines = 'data = "docs"\nstudy = "clipping"\nkinds = ["mha_norm", "gelu"]'
    step = parse_recipe(STEP + lines).steps["why"]
    assert tuple(as_table(step)["kinds"]) == ("mha_norm", "ffn_act")


@pytest.mark.parametrize(
    ("study", "lines"),
    [
        ("clipping", 'kinds = ["ffn_act", "ffn_act"]'),
        ("clipping", "shares = [0.5, 0.5]"),
        ("clipping", "limits = [5.0, 5.0]"),
    ],
)
def test_nothing_is_measured_twice(study: str, lines: str) -> None:
    assert "list it once" in mistakes(f'study = "{study}"\ndata = "docs"\n{lines}')


def test_a_study_that_reads_texts_needs_data_and_gamma_takes_none() -> None:
    assert "steps.why.data" in mistakes('study = "outliers"')
    assert "steps.why.data" in mistakes('study = "gamma"\ndata = "docs"')
    assert parse_recipe(STEP + 'study = "gamma"').order == ["why"]


@pytest.mark.parametrize("study", MOVED)
def test_a_study_that_became_a_benchmark_is_told_where_it_went(
    study: str, repository: Path
) -> None:
    told = mistakes(f'study = "{study}"\ndata = "docs"\nwidths = [8]')
    assert f"study '{study}' was moved to a benchmark" in told
    assert f"python benchmarks/{study}.py" in told
    assert "unknown" not in told
    assert (repository / "benchmarks" / f"{study}.py").is_file()


def test_a_criterion_of_weights_is_not_asked_for_in_hidden_states() -> None:
    told = mistakes('data = "docs"\nat = "hidden_states"')
    assert "does not go with criterion = 'gamma_3sigma'" in told
    assert parse_recipe(STEP + 'data = "docs"\nat = "norms"')
    lines = 'data = "docs"\nat = "hidden_states"\ncriterion = "activation_std"'
    assert parse_recipe(STEP + lines)


def test_histograms_need_no_data_and_compare_two_different_models() -> None:
    study = 'study = "histograms"\n'
    assert parse_recipe(STEP + study).order == ["why"]
    assert "the model itself" in mistakes(study + 'compare_with = "demo:minilm-l6"')
    assert "list it once" in mistakes(study + "layers = [1, 1]")
    made = '[steps.int8]\nrun = "quantize"\nmethod = "minmax"\nmodel = "demo:minilm-l6"'
    made += '\ncalibration = { data = "docs" }'
    told = mistakes(f'{study}compare_with = "int8"\n{made}')
    assert "steps.why.compare_with" in told


def test_data_that_the_recipe_does_not_have_and_a_quantized_model_are_refused() -> None:
    assert "no [data.doc]" in mistakes('data = "doc"')
    made = '\n[steps.int8]\nrun = "quantize"\nmethod = "minmax"\nmodel = "why"'
    told = mistakes(f'data = "docs"{made}\ncalibration = {{ data = "docs" }}')
    assert "step 'why' runs 'analyze'" in told
