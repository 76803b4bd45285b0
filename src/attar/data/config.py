"""Settings of a `[data.<name>]` table. Imports no torch."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from attar.config import Config
from attar.tasks.table import CAUSAL_LM, CLASSIFICATION, KINDS, Kind, Objective

GlueTask = Literal["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"]
NO_DELIMITERS = "\"'\r\n\0"
MAX_ROW_KIB = 512
"""A row above this is set aside: a hundred times what an encoder of 512 tokens reads."""
MAX_DOCUMENT_KIB = 2**14
"""The same where a file is a row: few books are longer."""
SummarizationTask = Literal["cnn_dailymail", "xsum"]


class DataSettings(Config):
    """What every source shares."""

    train_rows: int | None = Field(default=None, gt=0)
    """Number of training rows to use, a seeded choice; a larger number keeps those of a smaller
    one. None: all."""
    rows_seed: int | None = Field(default=None, ge=0)
    """Seed of train_rows; None: that of the step that reads, so that each seed of a sweep reads
    other rows."""
    validation_rows: int | None = Field(default=None, gt=0)
    """Number of validation rows to use; None: all."""
    max_set_aside: float = Field(default=0.01, ge=0, le=1)
    """Share of unusable rows above which loading stops; up to it they are counted and reported."""


class GlueData(DataSettings):
    """One of the nine GLUE tasks."""

    source: Literal["glue"] = "glue"
    task: GlueTask
    """Name of the task."""
    path: str | None = None
    """A folder holding <task>/<split>.jsonl.gz; None: the hub's nyu-mll/glue."""
    revision: str | None = None
    """Commit of the hub's data set; None: the newest. Not used with `path`."""


class SummarizationData(DataSettings):
    """News articles and their summaries."""

    source: Literal["summarization"] = "summarization"
    task: SummarizationTask
    """Name of the data set."""
    path: str | None = None
    """A folder holding <task>/<split>.jsonl.gz; None: the hub's abisee/cnn_dailymail (3.0.0) or
    EdinburghNLP/xsum."""
    revision: str | None = None
    """Commit of the hub's data set; None: the newest. Not used with `path`."""


class FilesData(DataSettings):
    """Your own files: .jsonl[.gz|.zst] .csv .tsv .parquet .txt, one file a split."""

    source: Literal["files"] = "files"
    path: str
    """A folder with one file a split, or a glob."""
    document: Literal["row", "file"] = "row"
    """file: each .txt file below the folder, or of the glob, is one row of train, with the columns
    text, file (its folder and its name) and source (its folder)."""
    delimiter: str | None = None
    """The character between the columns of a .csv, a .tsv or, if it is set, a .txt; None: a comma,
    in a .tsv a tab."""
    header: bool = True
    """The first line of such a file names its columns; false: it is a row, and the columns are
    called column1, column2, …"""
    text: str | tuple[str, str] | None = None
    """A column, or two for pairs; None: guessed when plain."""
    label: str = "label"
    """Column of the labels: integers, names, or (for regression) numbers; for multi_label several
    names, or none."""
    separator: str = Field(default="|", min_length=1, max_length=10)
    """Of multi_label: what parts the names in a cell. A JSON list needs none."""
    target: str = "target"
    """Column of the target texts."""
    objective: Objective = CLASSIFICATION.name
    """What the data is for. causal_lm: running text, in which every token is predicted from
    those before it."""
    label_names: tuple[str, ...] | None = Field(None, min_length=2)
    """Order of the classes; None: sorted names found in train."""
    negatives: int | None = Field(default=None, gt=0, le=1000)
    """Of reranking, where there is no label column and each row's texts belong together: so many
    passages of other rows, drawn for each query, are its wrong candidates; None: 9."""
    id: str = "id"
    """Column whose values must be unique, if it exists; "": no such column."""
    train: str = "train"
    """File stem of the split."""
    validation: str | None = None
    """File stem; None: 'validation', 'dev' or 'valid' if such a file exists, else a seeded
    tenth of train."""
    test: str | None = None
    """File stem of the test split; None: there is none."""
    unlabelled: str | None = None
    """A file of texts without labels, beside the others: its stem or its name. A step with a
    teacher, whose answers are then the targets, learns from them too. Without a train file, they
    are all it learns from."""
    max_row_kib: int | None = Field(default=None, ge=1, le=2**20)
    """A row above this is set aside; None: 512, and 16,384 with document = "file"."""

    @field_validator("delimiter")
    @classmethod
    def _delimiter_is_a_sign(cls, delimiter: str | None) -> str | None:
        if delimiter is not None and (len(delimiter) != 1 or delimiter in NO_DELIMITERS):
            raise ValueError(
                f"must be one character, no quotation mark and no line end, got {delimiter!r}; "
                r'write ";", "\t" or "|"'
            )
        return delimiter

    @model_validator(mode="after")
    def _label_names_fit(self) -> Self:
        names = self.label_names or ()
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"label_names: {', '.join(map(repr, twice))} stands there twice; each class needs "
                "a name of its own"
            )
        if names and not self.kind.allows(len(names)):
            raise ValueError(
                f"label_names names {len(names)} classes, but {self.objective} has none; remove "
                f'label_names, or objective = "{self.objective}"'
            )
        if self.negatives is not None and not self.kind.ranks:
            raise ValueError(
                f"negatives are wrong candidates for a query, and {self.objective} has no "
                "candidates; leave it out"
            )
        if self.kind.is_running and isinstance(self.text, tuple):
            raise ValueError(
                f"{self.objective} reads running text from one column, got {len(self.text)}; name "
                "one column with text ="
            )
        return self

    @model_validator(mode="after")
    def _whole_files_are_of_train(self) -> Self:
        named = {"train": self.train != "train", "validation": self.validation, "test": self.test}
        named["unlabelled"] = self.unlabelled
        if self.document == "file" and any(named.values()):
            split = next(name for name, is_named in named.items() if is_named)
            raise ValueError(
                f'{split} names the file of a split, and with document = "file" every file is a '
                f"row of train, a tenth of which is held out; remove {split}"
            )
        return self

    @model_validator(mode="after")
    def _a_teacher_can_answer(self) -> Self:
        if self.unlabelled and self.kind.answer != "row":
            advice = (
                "let the teacher write its own targets with a generate step"
                if self.kind.writes
                else "such data has no labels, so give these texts to train"
            )
            raise ValueError(
                f"unlabelled texts get a class or a number from a teacher, and the objective is "
                f"{self.objective}; leave unlabelled out: {advice}"
            )
        return self

    @property
    def kind(self) -> Kind:
        """The row of its objective in the table of tasks."""
        return KINDS[self.objective]

    @property
    def max_row_bytes(self) -> int:
        """As max_row_kib has it."""
        usual = MAX_DOCUMENT_KIB if self.document == "file" else MAX_ROW_KIB
        return 1024 * (usual if self.max_row_kib is None else self.max_row_kib)


class HubData(DataSettings):
    """Running text of a data set on the Hugging Face hub, read as a stream; needs `datasets`."""

    source: Literal["hub"] = "hub"
    name: str
    """owner/name."""
    config: str | None = None
    """Name of a configuration; None: the default one."""
    split: str = "train"
    """The split that documents are read from."""
    revision: str
    """Commit to read. A branch can change, and a resumed run would then read other rows."""
    text: str = "text"
    """Column of the text."""
    validation: str | None = None
    """The split that models are judged by; None: a hundredth of `split`, chosen by a hash of the
    text, which then never enters a corpus."""
    validation_rows: int | None = Field(default=1000, gt=0)
    """Read only this many validation rows; None: all."""

    @field_validator("name")
    @classmethod
    def _name_is_an_id(cls, name: str) -> str:
        if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
            raise ValueError(f"must be owner/name, got {name!r}")
        return name

    @field_validator("revision")
    @classmethod
    def _revision_is_a_commit(cls, revision: str) -> str:
        if not re.fullmatch(r"[0-9a-f]{40}", revision):
            raise ValueError(
                f"must be a commit of 40 hexadecimal digits, got {revision!r}; copy it from the "
                "data set's page, Files, History"
            )
        return revision

    @model_validator(mode="after")
    def _rows_are_not_drawn(self) -> Self:
        if self.train_rows is not None:
            raise ValueError(
                "train_rows are drawn from rows in memory, and this source is read as a stream; "
                f"set max_documents = {self.train_rows} in the tokenize step"
            )
        return self

    @property
    def kind(self) -> Kind:
        """The row of running text in the table of tasks."""
        return CAUSAL_LM


class StdlibDocsData(DataSettings):
    """Sentences of the docstrings of the running Python's standard library, labelled by area.
    Needs nothing but Python."""

    source: Literal["stdlib_docs"] = "stdlib_docs"


class StdlibTextData(DataSettings):
    """Running text: the sources of the running Python's standard library and its language
    reference. Needs nothing but Python."""

    source: Literal["stdlib_text"] = "stdlib_text"


TextConfig = Annotated[
    GlueData | SummarizationData | FilesData | HubData | StdlibDocsData | StdlibTextData,
    Field(discriminator="source"),
]
"""A source of texts."""


class CorpusData(DataSettings):
    """Chunks that a run made before: what a tokenize or a select step published."""

    source: Literal["corpus"] = "corpus"
    path: str
    """The step's folder: runs/<name>/<step>."""
    corpus: str | None = None
    """Of a selection: the folder of its corpus. None: where it was when the selection was made."""
    validation: TextConfig | None = None
    """Texts whose validation split judges models. None: the corpus can be scored, selected from and
    exported, but nothing can be trained on it."""

    @model_validator(mode="after")
    def _chunks_are_not_limited(self) -> Self:
        fields = DataSettings.model_fields.items()
        given = [name for name, field in fields if getattr(self, name) != field.default]
        if given:
            raise ValueError(
                f"{given[0]} is a setting of texts, and the chunks of a corpus are read as they "
                "are; remove it, or select chunks with a select step"
            )
        return self

    @property
    def kind(self) -> Kind:
        """The row of running text in the table of tasks."""
        return CAUSAL_LM


DataConfig = Annotated[
    GlueData
    | SummarizationData
    | FilesData
    | HubData
    | StdlibDocsData
    | StdlibTextData
    | CorpusData,
    Field(discriminator="source"),
]
