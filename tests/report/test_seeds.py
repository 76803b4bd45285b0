"""Methods over seeds: who is compared with whom, on what, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import made_up_run
from attar.numerics.paired import paired
from attar.report.markdown import markdown_of
from attar.report.reading import read_made
from attar.report.sections.page import page_of
from attar.report.sections.seed_comparisons import SeedComparison, seed_comparisons

PRED, HIDDEN, EOFD = [0.80, 0.82, 0.81], [0.83, 0.84, 0.84], [0.84, 0.83, 0.85]
METHODS = {"pred": PRED, "hidden": HIDDEN, "eofd": EOFD}


def evaluations(
    methods: Mapping[str, Sequence[float | None]],
    metric: str = "accuracy",
    data: str = "sst2",
    step: str = "scores",
    also: str = "",
) -> dict[str, dict[str, Any]]:
    """What an evaluate step that a sweep over seeds has copied would have measured."""
    found = {}
    for seed in range(max(map(len, methods.values()))):
        models: dict[str, Any] = {"teacher": {metric: {"value": 0.9}, "size_mib": 80.0}}
        for name, values in methods.items():
            if seed < len(values) and values[seed] is not None:
                figures = {metric: {"value": values[seed], "n": 872}, "size_mib": 43.0}
                models[f"{name}@{also}seed={seed}"] = figures
        found[f"{step}@{also}seed={seed}"] = {"data": {"name": data}, "models": models}
    return found


def only(found: tuple[SeedComparison, ...]) -> SeedComparison:
    [comparison] = found
    return comparison


def test_every_method_is_paired_with_the_first_seed_by_seed() -> None:
    comparison = only(seed_comparisons(evaluations(METHODS)))
    assert (comparison.first, comparison.data, comparison.metric) == ("pred", ("sst2",), "accuracy")
    by_name = {method.name: method for method in comparison.methods}
    assert list(by_name) == ["pred", "hidden", "eofd"], "the teacher has no seeds"
    assert by_name["pred"].against_first is None
    assert by_name["eofd"].against_first == paired(EOFD, PRED)
    assert by_name["hidden"].verdict == "better"


def test_two_splits_of_the_same_data_are_told_apart() -> None:
    both = evaluations(METHODS, data="mnli")
    for name, metrics in evaluations(METHODS, data="mnli", step="more").items():
        both[name] = {**metrics, "data": {"name": "mnli", "split": "validation_mismatched"}}
    found = seed_comparisons(both)
    assert [each.where for each in found] == ["mnli", "mnli (validation_mismatched)"]


def test_only_seeds_that_both_have_are_paired() -> None:
    missed = evaluations({"pred": PRED, "eofd": [EOFD[0], None, EOFD[2]]})
    comparison = only(seed_comparisons(missed))
    assert comparison.methods[1].against_first == paired(EOFD[::2], PRED[::2])
    assert comparison.methods[1].verdict == "too few to tell"
    assert comparison.methods[1].sentence.endswith("over 2 seeds: too few; at least 3 are needed.")


def test_methods_without_a_common_seed_are_said_to_have_none() -> None:
    steps = evaluations({"pred": PRED})
    models = {"eofd@seed=7": {"accuracy": {"value": 0.8}}}
    steps["scores@seed=7"] = {"data": {"name": "sst2"}, "models": models}
    method = only(seed_comparisons(steps)).methods[1]
    assert method.against_first is None
    assert method.sentence == "eofd and pred share no seed, so they cannot be compared."


def test_one_method_alone_and_a_run_without_seeds_compare_nothing() -> None:
    assert seed_comparisons(evaluations({"pred": PRED})) == ()
    models = {"a": {"accuracy": {"value": 0.8}}, "b@bits=4": {"accuracy": {"value": 0.7}}}
    assert seed_comparisons({"scores": {"models": models}}) == ()
    assert seed_comparisons({}) == ()


def test_a_lower_perplexity_is_better() -> None:
    methods = {"pred": [20.0, 21.0, 20.5], "eofd": [18.0, 19.1, 18.4]}
    method = only(seed_comparisons(evaluations(methods, "perplexity"))).methods[1]
    assert method.verdict == "better"
    assert "2.000 of perplexity below pred over 3 seeds" in method.sentence
    assert method.sentence.endswith(
        ", higher in 0 of 3, p = 0.25, the smallest possible with 3 seeds)."
    )


def test_identical_methods_are_level_and_inside_the_noise() -> None:
    method = only(seed_comparisons(evaluations({"a": PRED, "b": PRED}))).methods[1]
    assert method.sentence == (
        "no difference was found between b and a over 3 seeds (b minus a: 0 points, 95 % interval "
        "0 to 0, higher in 0 of 3, p = 1)."
    )


def test_other_settings_of_a_sweep_part_methods_and_data_do_not() -> None:
    steps = evaluations({"int8": PRED}, also="bits=4,") | evaluations(
        {"int8": EOFD}, also="bits=8,"
    )
    comparison = only(seed_comparisons(steps))
    assert [method.name for method in comparison.methods] == ["int8@bits=4", "int8@bits=8"]


def test_over_several_data_sets_means_are_taken_seed_by_seed() -> None:
    other = {
        name: [value - 0.3 - 0.1 * seed for seed, value in enumerate(values)]
        for name, values in METHODS.items()
    }
    swept = evaluations(METHODS, also="data=sst2,") | evaluations(
        other, "matthews", "cola", also="data=cola,"
    )
    found = seed_comparisons(swept)
    assert [(c.metric, c.where) for c in found] == [
        ("accuracy", "sst2"),
        ("matthews", "cola"),
        ("mean", "mean of sst2, cola"),
    ]
    means = {
        name: [(a + b) / 2 for a, b in zip(values, other[name], strict=True)]
        for name, values in METHODS.items()
    }
    eofd = found[2].methods[2]
    assert list(eofd.scores.values()) == means["eofd"]
    assert eofd.against_first == paired(means["eofd"], means["pred"])
    written_apart = evaluations(METHODS) | evaluations(other, "matthews", "cola", step="more")
    assert seed_comparisons(written_apart)[2].methods[2].against_first == eofd.against_first


def test_the_same_data_looked_at_twice_count_once_in_every_mean() -> None:
    """Two evaluate steps on two data sets (two splits, say): a mean each, of their own scores."""
    worse = {name: [value - 0.3 for value in values] for name, values in METHODS.items()}
    swept: dict[str, Any] = {}
    for step, methods in (("scores", METHODS), ("hidden_split", worse)):
        for data in ("sst2", "cola"):
            swept |= evaluations(methods, data=data, step=step, also=f"data={data},")
    means = [c for c in seed_comparisons(swept) if c.metric == "mean"]
    assert [c.evaluation for c in means] == ["scores", "hidden_split"]
    for comparison, methods in zip(means, (METHODS, worse), strict=True):
        assert list(comparison.methods[2].scores.values()) == pytest.approx(methods["eofd"])
    twice = evaluations(METHODS) | evaluations(worse, step="more")
    assert [c.metric for c in seed_comparisons(twice)] == ["accuracy", "accuracy"]


def test_means_over_perplexities_and_over_methods_that_share_no_data_are_not_taken() -> None:
    falling = evaluations(METHODS, "perplexity") | evaluations(METHODS, "nll", "cola", "more")
    assert [c.metric for c in seed_comparisons(falling)] == ["perplexity", "nll"]
    half = evaluations({"a": PRED, "b": EOFD}) | evaluations({"a": PRED}, data="x", step="y")
    assert [c.metric for c in seed_comparisons(half)] == ["accuracy"]
    apart = evaluations({"a": PRED, "b": EOFD}) | evaluations(
        {"c": PRED, "d": EOFD}, data="x", step="y"
    )
    assert [c.metric for c in seed_comparisons(apart)] == ["accuracy", "accuracy"]


def test_the_page_and_its_twins_show_means_differences_and_verdicts(tmp_path: Path) -> None:
    inputs, content = made_up_run.write_sweep(tmp_path / "run")
    html = made_up_run.make_report(tmp_path / "report", inputs, content).read_text()
    page = page_of(read_made(inputs, content), content)
    assert [each.metric for each in page.over_seeds] == ["accuracy", "f1"]
    comparison = page.over_seeds[0]
    assert [method.name for method in comparison.methods] == ["student", "int8", "deploy"]
    for line in comparison.lines:
        assert line.partition(": ")[2] in html
    assert "Accuracy of every seed" in html
    assert "## Methods over seeds" in markdown_of(html, "t")
    written = json.loads((tmp_path / "report" / "report.json").read_text())["over_seeds"]
    assert written[0]["methods"][1]["against_first"]["n"] == 3
