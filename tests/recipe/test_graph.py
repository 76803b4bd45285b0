"""Order and circles."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from attar.recipe.graph import find_cycle, in_order, inputs_of
from attar.recipe.load import parse_recipe
from engine_steps import RECIPE

GRAPHS = st.dictionaries(
    st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), unique=True), min_size=1
).map(lambda graph: {name: [i for i in reads if i in graph] for name, reads in graph.items()})


def test_a_step_reads_what_its_settings_name_and_a_report_reads_all() -> None:
    inputs = inputs_of(parse_recipe(RECIPE).steps)
    assert inputs == {
        "teacher": (),
        "student": ("teacher",),
        "int8": ("student",),
        "scores": ("teacher", "student", "int8"),
        "report": ("teacher", "student", "int8", "scores"),
    }


@given(GRAPHS)
def test_a_graph_has_an_order_or_a_circle_and_never_both(graph: dict[str, list[str]]) -> None:
    cycle = find_cycle(graph)
    if cycle:
        following = [*cycle[1:], cycle[0]]
        assert all(after in graph[name] for name, after in zip(cycle, following, strict=True))
    else:
        order = in_order(graph)
        assert sorted(order) == sorted(graph)
        assert all(order.index(i) < order.index(name) for name in graph for i in graph[name])


def test_steps_without_arrows_keep_the_order_they_are_written_in() -> None:
    assert in_order(dict.fromkeys("dacb", ())) == list("dacb")


def test_a_chain_of_thousands_needs_no_recursion() -> None:
    chain = {str(i): [str(i + 1)] for i in range(2000)} | {"2000": []}
    assert find_cycle(chain) is None
    assert find_cycle(chain | {"2000": ["1999"]}) == ["1999", "2000"]
