"""Checks relations between fields: references to steps and data, cycles, gates and sweeps.

It reads the plain tables and does not need a valid schema, so that one invalid field does not hide
an invalid reference elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from attar.artifacts import read_result
from attar.config import in_recipe_folder
from attar.data.corpus.config import CORPUS_MAKERS
from attar.errors import AttarError
from attar.models.config import written_config
from attar.models.sources.demo import PREFIX, demo_config, demo_model
from attar.models.sources.references import find_model_folder
from attar.models.sources.safe_files import CONFIG_FILE, read_config
from attar.models.structure.families import FAMILIES, positions_of, without_views
from attar.recipe.checking.gate_paths import gate_mistakes
from attar.recipe.checking.mistakes import Mistake, NearName, Place, listed, near_names
from attar.recipe.checking.references import ModelWord, table_of
from attar.recipe.graph import find_cycle
from attar.recipe.steps import STEPS
from attar.tasks.table import KINDS

Tables = Mapping[str, Mapping[str, Any]]
ROW_MAKERS = tuple(run for run, kind in STEPS.items() if kind.rows)
"""Kinds of steps that can be used as data."""
AT_MOST = {
    **dict.fromkeys(("embedding.width", "model.static_width", "model.hidden_size"), "hidden_size"),
    "model.intermediate_size": "intermediate_size",
    "model.num_attention_heads": "num_attention_heads",
}
"""Setting of a step → field of its model's config that it may not exceed."""
SLIP = 0.8
"""Minimum similarity to a step's name for a model name to count as a typo: "studnt" (0.92) and
"corpsu" (0.83) do, the hub's "roberta-base" with a step "roberta" (0.74) does not."""


def check_relations(content: Mapping[str, Any], recipe_folder: Path) -> list[Mistake]:
    """Every violated relation, in the order of the recipe."""
    steps = _tables(content.get("steps"))
    data = _tables(content.get("data"))
    near_step = near_names(list(steps))
    makers = [name for name, step in steps.items() if step.get("run") in ROW_MAKERS]
    near_data = near_names([*data, *makers])
    families = ModelFamilies(steps, recipe_folder)
    mistakes = [
        Mistake(("steps", name), f"[data.{name}] has this name too, and `data` may name either")
        for name in makers
        if name in data
    ]
    inputs: dict[str, list[str]] = {}
    kinds = {name: STEPS.get(str(step.get("run"))) for name, step in steps.items()}
    for name, step in steps.items():
        kind = kinds[name]
        if kind is None:
            continue
        inputs[name] = []
        for reference in kind.models_in(step):
            problem = _model_problem(reference, name, steps, data, recipe_folder, near_step)
            wanted = reference.wanted
            is_built = not wanted.steps_only and not wanted.tokenizer_only
            if problem is None and is_built:
                problem = families.problem(reference.word, step)
                for setting in kind.length:
                    if too_long := _length_problem(reference.word, step, setting, families):
                        mistakes.append(Mistake(_place(name, setting), too_long))
                if reference.place in ("model", "model.from"):
                    mistakes += _too_wide(reference.word, name, step, families)
            if problem:
                mistakes.append(Mistake(_place(name, reference.place), problem))
            elif reference.word in steps:
                inputs[name].append(reference.word)
        for reference in kind.data_in(step):
            problem = None
            if kinds.get(reference.word, kind) is None:
                continue  # the step's `run` is invalid, which is reported elsewhere
            if reference.word in makers:
                inputs[name].append(reference.word)
            elif reference.word not in data:
                problem = _data_problem(reference.word, steps, near_data, [*data, *makers])
            if problem is None and reference.place in kind.corpora:
                problem = _corpus_problem(reference.word, steps, data)
            if problem:
                mistakes.append(Mistake(_place(name, reference.place), problem))
    cycle = find_cycle(inputs)
    if cycle:
        circle = " → ".join([*cycle, cycle[0]])
        problem = f"the steps form a cycle: {circle}"
        mistakes.append(Mistake(("steps", cycle[0]), problem))
    return mistakes + gate_mistakes(content.get("gates"), steps)


def _tables(value: Any) -> Tables:
    """The entries of a table that are tables; the schema reports the others."""
    entries = table_of(value).items()
    return {name: table_of(entry) for name, entry in entries if isinstance(entry, Mapping)}


def _place(step: str, inside: str) -> Place:
    return ("steps", step, *(int(p) if p.isdigit() else p for p in inside.split(".")))


def _model_problem(
    reference: ModelWord,
    owner: str,
    steps: Tables,
    data: Tables,
    recipe_folder: Path,
    near_step: NearName,
) -> str | None:
    word, wanted = reference.word, reference.wanted
    if word == owner:
        return f"step {owner!r} reads itself"
    if word in steps:
        run = str(steps[word].get("run"))
        if run in STEPS and run not in wanted.makers:
            fit = " or ".join(map(repr, wanted.makers))
            return f"step {word!r} runs {run!r}; this place needs a step that runs {fit}"
        return _base_problem(word, steps, data) if wanted.answers else None
    if wanted.steps_only:
        return _published_problem(word, wanted.makers, recipe_folder, near_step)
    if word.startswith(PREFIX):
        named = (str(each.get("objective")) for each in data.values())
        embeds = any(KINDS[name].embeds for name in named if name in KINDS)
        return _demo_problem(word, wanted.needs_task, embeds=embeds)
    if in_recipe_folder(word, recipe_folder).is_dir():
        return None
    if word in data:
        fit = " or ".join(map(repr, wanted.makers))
        return f"[data.{word}] is data, and this place needs a model or a step that runs {fit}"
    near = near_step(word, SLIP)
    if near:
        return f"{word!r} is neither a step nor a folder{near}"
    if word.startswith((".", "/", "~")) or word.count("/") > 1:
        return f"folder {word!r} does not exist (relative paths start at {recipe_folder})"
    return None


def _base_problem(word: str, steps: Tables, data: Tables) -> str | None:
    """Why what a step trains is not deployed, as far as the recipe says what it is trained for."""
    source = data.get(str(steps[word].get("data")), {})
    kind = KINDS.get(str(steps[word].get("objective") or source.get("objective")))
    problem = kind and kind.only_a_base
    return problem and f"step {word!r} {problem}"


def _published_problem(
    word: str, makers: Sequence[str], recipe_folder: Path, near_step: NearName
) -> str | None:
    """Why a name that is not a step of this recipe is not a suitable step's folder either."""
    fit = " or ".join(map(repr, makers))
    folder = in_recipe_folder(word, recipe_folder)
    if not folder.is_dir():
        near = near_step(word)
        return (
            f"no step {word!r}{near}; this place needs a step that runs {fit}, or its folder in "
            "another run"
        )
    try:
        run = read_result(folder).run
    except AttarError as error:
        return f"{word!r} is not the folder of a step: {error}"
    return None if run in makers else f"{word!r} was made by a step that runs {run!r}, not {fit}"


def _length_problem(
    word: str, step: Mapping[str, Any], setting: str, families: ModelFamilies
) -> str | None:
    """Why a model cannot read texts of the length in a step's settings."""
    length: Any = step
    for name in setting.split("."):
        length = table_of(length).get(name)
    if isinstance(length, list):
        words = cast("list[Any]", length)
        length = max((each for each in words if isinstance(each, int)), default=None)
    longest = families.positions(word) if isinstance(length, int) else None
    if longest is None or length <= longest:
        return None
    return f"is {length}, and {word!r} has {longest} positions; set {setting} = {longest} or less"


def _too_wide(
    word: str, name: str, step: Mapping[str, Any], families: ModelFamilies
) -> Iterator[Mistake]:
    """Sizes above those of the model that a step starts from."""
    config = table_of(families.config_of(word))
    for setting, field in AT_MOST.items():
        table, _, last = setting.partition(".")
        size, most = table_of(step.get(table)).get(last), config.get(field)
        if isinstance(size, int) and isinstance(most, int) and size > most:
            text = f"is {size}, and {word!r} has {field} = {most}; set {setting} = {most} or less"
            yield Mistake(_place(name, setting), text)


def _data_problem(word: str, steps: Tables, near_data: NearName, known: list[str]) -> str:
    if word in steps:
        run, fit = steps[word].get("run"), " or ".join(map(repr, ROW_MAKERS))
        return (
            f"step {word!r} runs {run!r} and makes no rows; use a [data.<name>] table, or a step "
            f"that runs {fit}"
        )
    has = f"the recipe has {listed(known)}" if known else "the recipe has no data"
    return f"no [data.{word}]{near_data(word)}; {has}"


def _corpus_problem(word: str, steps: Tables, data: Tables) -> str | None:
    """Why data is not a corpus."""
    if word in steps:
        run = steps[word].get("run")
        found = None if run in CORPUS_MAKERS else f"step {word!r} runs {run!r}"
    else:
        source = data[word].get("source")
        found = None if source == "corpus" else f"data {word!r} has source = {source!r}"
    if found is None:
        return None
    return (
        f'{found}, and a corpus is needed; name a step with run = "tokenize", or a table with '
        'source = "corpus"'
    )


def _demo_problem(word: str, needs_task: bool, *, embeds: bool) -> str | None:
    """Why a demo model cannot be used at a place.

    Args:
        embeds: whether the recipe has data for embedding models.
    """
    try:
        demo = demo_model(word)
    except AttarError as error:
        return str(error)
    if needs_task and KINDS[demo.objective].embeds and not embeds:
        return (
            f"{word!r} is pretrained but not fine-tuned for anything but {demo.objective}, and the "
            "recipe has no data for that; add a train step and name it here"
        )
    return None


CUTS = ("keep_blocks", "hidden_size", "intermediate_size", "num_attention_heads", "ffn")
"""Settings that derive a student from parts of another model."""


def _needs_views(step: Mapping[str, Any]) -> bool:
    is_cut = any(name in table_of(step.get("model")) for name in CUTS)
    kind = STEPS.get(str(step.get("run")))
    return is_cut or (kind is not None and kind.needs_views)


class ModelFamilies:
    """Cached configs of the models in a recipe."""

    def __init__(self, steps: Mapping[str, Mapping[str, Any]], recipe_folder: Path) -> None:
        self._steps, self._recipe_folder = steps, recipe_folder
        self._configs: dict[str, Mapping[str, Any] | None] = {}

    def problem(self, word: str, step: Mapping[str, Any]) -> str | None:
        """Why a step cannot use a model; None if it can, or if the model is not known yet. For
        model types without a table row, only the plan knows whether transformers supports them."""
        model_type = table_of(self.config_of(word)).get("model_type")
        if model_type is None or model_type in FAMILIES or not _needs_views(step):
            return None
        return without_views(str(model_type))

    def positions(self, word: str) -> int | None:
        """Maximum length of a model in tokens; None: no limit, or unknown."""
        config = self.config_of(word)
        return None if config is None else positions_of(config)

    def config_of(self, word: str) -> Mapping[str, Any] | None:
        """The config of a model; None: unknown. For the model of a step, it is the config of the
        model that the step starts from, except for the size."""
        passed: list[str] = []
        written: Mapping[str, Any] = {}
        while word in self._steps and word not in self._configs:
            passed.append(word)
            self._configs[word] = None  # ends the recursion if steps form a cycle
            model = self._steps[word].get("model")
            written = written_config(table_of(model))
            word = str(table_of(model).get("from", "") if isinstance(model, Mapping) else model)
        if isinstance(written.get("model_type"), str):
            found = written
        else:
            found = self._configs.get(word) or self._outside(word)
            self._configs.setdefault(word, found)
        self._configs |= dict.fromkeys(passed, found)
        return found

    def _outside(self, word: str) -> Mapping[str, Any] | None:
        is_known = bool(word) and word not in self._steps
        return config_outside(word, self._recipe_folder) if is_known else None


def config_outside(word: str, recipe_folder: Path) -> Mapping[str, Any] | None:
    """The config of a demo model or a model folder; None: unknown."""
    try:
        if word.startswith(PREFIX):
            return demo_config(word) or None
        folder = find_model_folder(in_recipe_folder(word, recipe_folder))
        return read_config(folder) if (folder / CONFIG_FILE).is_file() else None
    except (AttarError, OSError, ValueError):
        return None  # reported by the first step that reads it
