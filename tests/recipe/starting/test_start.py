"""`attar new`: whatever it writes is a recipe that passes the check; what it cannot do it says."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from attar.data.load import load_data
from attar.data.look.form import TaskName, Wishes
from attar.errors import DataError, UsageError
from attar.recipe.checking.local_files import look_at_data, require_models
from attar.recipe.load import load_recipe, require_data
from attar.recipe.schema import Recipe
from attar.recipe.starting.sizes import SIZES
from attar.recipe.starting.start import NewRecipe, new_recipe
from attar.recipe.starting.written import Subject, labelled, running_text

LABELS: dict[TaskName, Any] = {
    "classes": lambda i: ("good", "bad")[i % 2],
    "numbers": lambda i: i / 7,
    "pairs": lambda i: ("yes", "no")[i % 2],
    "running_text": lambda i: "",
}


def write(folder: Path, task: TaskName, count: int = 60) -> Path:
    file = folder / "my data.jsonl"
    rows = [
        {
            "text": f"a good film of number {i} " * (20 if task == "running_text" else 1),
            **({"other": f"a bad film of number {i}"} if task == "pairs" else {}),
            **({"label": LABELS[task](i)} if task != "running_text" else {}),
        }
        for i in range(count)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def checked(made: NewRecipe) -> Recipe:
    recipe, folder = load_recipe(made.file), made.file.resolve().parent
    require_data(recipe, folder)
    require_models(recipe, folder)
    assert [summary.name for summary in look_at_data(recipe, folder)] == ["my_data"]
    return recipe


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("task", LABELS)
def test_every_task_and_size_is_a_recipe_that_passes_the_check(
    tmp_path: Path, tiny_bert: Path, task: TaskName, size: str
) -> None:
    data, output = write(tmp_path, task), tmp_path / "recipes" / "r.toml"
    output.parent.mkdir()
    made = new_recipe(data, Wishes(task=task), size=size, model=str(tiny_bert), output=output)
    recipe = checked(made)
    assert recipe.name == "my_data"
    assert f"wrote {output} (size {size})" in made.text()
    assert f"will write to runs/{recipe.name} in" in made.text()
    assert made.next == [f"attar {verb} {output}" for verb in ("check", "plan", "run")]
    [table] = recipe.data.values()
    assert table.kind.name == {
        "classes": "classification",
        "numbers": "regression",
        "pairs": "classification",
        "running_text": "causal_lm",
    }.get(task)


def test_a_recipe_that_is_there_is_only_overwritten_by_force(
    tmp_path: Path, tiny_bert: Path
) -> None:
    data, output = write(tmp_path, "classes"), tmp_path / "r.toml"
    output.write_text("mine")
    with pytest.raises(UsageError, match=r"exists already; .* --output, or .* --force"):
        new_recipe(data, Wishes(), model=str(tiny_bert), output=output)
    assert output.read_text() == "mine"
    new_recipe(data, Wishes(), model=str(tiny_bert), output=output, force=True)
    assert load_recipe(output)


def test_texts_without_labels_are_shown_and_the_ways_on_are_named(
    tmp_path: Path, tiny_bert: Path
) -> None:
    (tmp_path / "d.csv").write_text("text\n" + "".join(f"a plain message {i}\n" for i in range(40)))
    said: list[str] = []
    with pytest.raises(UsageError, match=r"--label; .* --task running_text"):
        new_recipe(
            tmp_path / "d.csv",
            Wishes(),
            model=str(tiny_bert),
            output=tmp_path / "r.toml",
            say=said.append,
        )
    assert any(line.split() == ["train", "40", *line.split()[2:]] for line in said)
    assert not (tmp_path / "r.toml").exists()


def test_few_rows_get_more_epochs_and_many_are_drawn_from(tmp_path: Path, tiny_bert: Path) -> None:
    few = new_recipe(
        write(tmp_path, "classes", 60),
        Wishes(),
        model=str(tiny_bert),
        output=tmp_path / "few.toml",
    )
    many = new_recipe(
        write(tmp_path, "classes", 3000),
        Wishes(),
        model=str(tiny_bert),
        output=tmp_path / "many.toml",
    )
    first, second = (load_recipe(made.file) for made in (few, many))
    assert first.steps["teacher"].epochs == SIZES["quick"].most  # pyright: ignore
    assert second.steps["teacher"].epochs == 2  # pyright: ignore
    assert first.data["my_data"].train_rows is None
    assert second.data["my_data"].train_rows == SIZES["quick"].rows


@pytest.mark.parametrize(("count", "held_out"), [(60, 15), (1000, 200), (3000, 300)])
def test_a_small_table_holds_out_more_than_a_tenth(
    tmp_path: Path, tiny_bert: Path, count: int, held_out: int
) -> None:
    data = write(tmp_path, "classes", count)
    made = new_recipe(data, Wishes(), model=str(tiny_bert), output=tmp_path / "r.toml")
    config = load_recipe(made.file).data["my_data"]
    assert len(load_data(config, tmp_path, name="d").split("validation")) == held_out
    said = f"{held_out} of {count:,} rows are held out for evaluation"
    assert (said in made.file.read_text()) == (held_out > count / 10)


def test_a_line_end_in_what_is_said_of_the_data_adds_no_setting() -> None:
    subject = Subject(
        name="d",
        data={"source": "files", "path": "d.csv", "text": "a\nseed = 7"},
        why={"text": "of 'b\nseed = 8'"},
        rows=90,
        validation_rows=10,
        longest=32,
        lengths="short",
        size="quick",
        model="bert",
        blocks=2,
    )
    for text in (labelled(subject), running_text(subject)):
        assert tomllib.loads(text)["seed"] == 0
        assert text.count("\nseed") == 1


def test_without_a_tokenizer_words_are_counted_and_that_is_said(tmp_path: Path) -> None:
    data = write(tmp_path, "classes")
    made = new_recipe(data, Wishes(), model="owner/some-bert", output=tmp_path / "r.toml")
    assert made.summary.unit == "words"
    assert "have at most 6 words" in made.file.read_text()
    assert "see num_hidden_layers in your model" in made.file.read_text()


def test_a_classifier_of_other_classes_gets_a_new_head(tmp_path: Path, tiny_bert: Path) -> None:
    """The tiny BERT's classes are bad and good."""
    data = write(tmp_path, "pairs")
    made = new_recipe(data, Wishes(), model=str(tiny_bert), output=tmp_path / "r.toml")
    assert "model.new_head = true" in made.file.read_text()
    data = write(tmp_path, "classes")
    made = new_recipe(data, Wishes(), model=str(tiny_bert), output=tmp_path / "s.toml")
    assert "new_head" not in made.file.read_text()


def test_too_few_usable_rows_are_refused_with_their_reasons(tmp_path: Path) -> None:
    data = write(tmp_path, "classes")
    with pytest.raises(DataError, match=r"0 usable rows \(60 × label is not a number\)"):
        new_recipe(data, Wishes(task="numbers", label="label"), model="owner/x")


def test_a_pair_without_a_label_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(
        "a,b\n" + "".join(f"one film {i},two films {i}\n" for i in range(30))
    )
    with pytest.raises(UsageError, match="'a' and 'b' are a pair, which needs a label"):
        new_recipe(tmp_path / "d.csv", Wishes(text=("a", "b")), model="owner/x")


@pytest.mark.parametrize(("count", "said"), [(1, "1 different label in 1200"), (1200, "1001 diff")])
def test_a_column_without_classes_is_refused_before_a_recipe_is_written(
    tmp_path: Path, count: int, said: str
) -> None:
    data, output = tmp_path / "d.csv", tmp_path / "r.toml"
    lines = "".join(f"a film of number {i},c{i % count}\n" for i in range(1200))
    data.write_text(f"text,label\n{lines}")
    with pytest.raises(DataError, match=said):
        new_recipe(data, Wishes(), model="owner/x", output=output)
    assert not output.exists()


def test_rows_in_another_encoding_come_with_what_to_do(tmp_path: Path) -> None:
    data = tmp_path / "d.csv"
    data.write_bytes(b"text,label\n" + b"caf\xe9 au lait,a\n" * 60)
    with pytest.raises(DataError) as caught:
        new_recipe(data, Wishes(), model="owner/x", output=tmp_path / "r.toml")
    assert "save the file as UTF-8 (in a spreadsheet: CSV UTF-8)" in str(caught.value)


def test_a_recipe_in_a_folder_that_is_not_there_is_a_mistake_of_use(tmp_path: Path) -> None:
    data = write(tmp_path, "classes")
    with pytest.raises(UsageError, match=r"the folder .*nowhere does not exist; create it first"):
        new_recipe(data, Wishes(), model="owner/x", output=tmp_path / "nowhere" / "r.toml")


def test_rows_that_cannot_be_used_are_let_out_by_a_setting_that_says_how_many(
    tmp_path: Path,
) -> None:
    data = write(tmp_path, "classes")
    with data.open("a") as stream:
        stream.write('{"text": "", "label": "good"}\n' * 4)
    made = new_recipe(data, Wishes(), model="owner/x", output=tmp_path / "r.toml")
    assert checked(made).data["my_data"].max_set_aside == 0.07
    assert "6.2% of the rows cannot be used; better fix them" in made.file.read_text()


def test_unlabelled_texts_beside_labelled_ones_are_a_setting(tmp_path: Path) -> None:
    folder = tmp_path / "my_data"
    folder.mkdir()
    write(folder, "classes").rename(folder / "train.jsonl")
    lines = [json.dumps({"text": f"a film nobody labelled {i}"}) for i in range(200)]
    (folder / "unlabelled.jsonl").write_text("\n".join(lines))
    made = new_recipe(folder, Wishes(), model="owner/x", output=tmp_path / "r.toml")
    recipe = checked(made)
    assert recipe.data["my_data"].unlabelled == "unlabelled"  # pyright: ignore
    assert made.summary.splits["unlabelled"].rows == 200
    assert not made.summary.splits["unlabelled"].set_aside
