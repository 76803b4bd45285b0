"""Settings of a `[data.<name>]` table. Imports no torch."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from attar.config import Config
from attar.tasks.table import (
    CAUSAL_LM,
    CLASSIFICATION,
    KINDS,
    REGRESSION,
    TEXT_TO_TEXT,
    Kind,
    Objective,
)

GlueTask = Literal["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"]
NO_DELIMITERS = "\"'\r\n\0"
MAX_ROW_KIB = 512
"""Longer rows are set aside; this is over a hundred times the text in 512 tokens."""
USUAL_SHARE = 0.1
"""Share of train to hold out for validation."""
MAX_DOCUMENT_KIB = 2**14
"""The limit if each file is a row; few books are longer."""
SummarizationTask = Literal["cnn_dailymail", "xsum"]


class DataSettings(Config):
    """Settings that all data sources share."""

    train_rows: int | None = Field(default=None, gt=0)
    """Number of training rows to use, a seeded random sample; a larger sample contains a smaller
    one. None: all."""
    rows_seed: int | None = Field(default=None, ge=0)
    """Seed of train_rows; None: the seed of the step that reads them, so each seed of a sweep reads
    different rows."""
    validation_rows: int | None = Field(default=None, gt=0)
    """Number of validation rows to use; None: all."""
    max_set_aside: float = Field(default=0.01, ge=0, le=1)
    """Maximum share of unusable rows; below it they are counted and reported, above it the step
    stops."""


class GlueData(DataSettings):
    """One of the nine GLUE tasks."""

    source: Literal["glue"] = "glue"
    task: GlueTask
    """Name of the task."""
    path: str | None = None
    """A folder holding <task>/<split>.jsonl.gz; None: the hub's nyu-mll/glue."""
    revision: str | None = None
    """Commit of the data set on the hub; None: the newest. Not used with `path`."""

    @property
    def kind(self) -> Kind:
        """Scores for STS-B, classes for the other tasks."""
        return REGRESSION if self.task == "stsb" else CLASSIFICATION


class SummarizationData(DataSettings):
    """News articles and their summaries."""

    source: Literal["summarization"] = "summarization"
    task: SummarizationTask
    """Name of the data set."""
    path: str | None = None
    """A folder holding <task>/<split>.jsonl.gz; None: the hub's abisee/cnn_dailymail (3.0.0) or
    EdinburghNLP/xsum."""
    revision: str | None = None
    """Commit of the data set on the hub; None: the newest. Not used with `path`."""

    kind: ClassVar[Kind] = TEXT_TO_TEXT


class FilesData(DataSettings):
    """Your own files: .jsonl[.gz|.zst] .csv .tsv .parquet .txt, one file per split."""

    source: Literal["files"] = "files"
    path: str
    """A folder with one file per split, or a glob."""
    document: Literal["row", "file"] = "row"
    """file: each .txt file below the folder, or matching the glob, is one training row with the
    columns text, file (folder and name) and source (folder)."""
    delimiter: str | None = None
    """Column separator of .csv and .tsv files and, if set, .txt files; None: a comma in a .csv, a
    tab in a .tsv."""
    header: bool = True
    """Whether the first line of such a file names the columns; false: the columns are column1,
    column2, …"""
    text: str | tuple[str, str] | None = None
    """Text column, or two for pairs; None: guessed if unambiguous."""
    label: str = "label"
    """Column of the labels: integers, names, or (for regression) numbers; for multi_label several
    names, or none."""
    separator: str = Field(default="|", min_length=1, max_length=10)
    """multi_label only: separator of the labels in a cell. A JSON list needs none."""
    target: str = "target"
    """Column of the target texts."""
    objective: Objective = CLASSIFICATION.name
    """Task of the data. causal_lm: running text, for next-token prediction."""
    label_names: tuple[str, ...] | None = Field(None, min_length=2)
    """Order of the classes; None: sorted names found in train."""
    negatives: int | None = Field(default=None, gt=0, le=1000)
    """reranking without a label column only: number of passages of other rows to draw for each
    query as negatives; None: 9."""
    id: str = "id"
    """Column whose values must be unique, if it exists; "": no such column."""
    train: str = "train"
    """File stem of the split."""
    validation: str | None = None
    """File stem of the validation split; None: 'validation', 'dev' or 'valid' if such a file
    exists, else rows of train are held out."""
    validation_share: float = Field(default=USUAL_SHARE, gt=0.0, lt=1.0)
    """Share of train that is held out for validation if there is no validation file."""
    test: str | None = None
    """File stem of the test split; None: there is none."""
    unlabelled: str | None = None
    """A file of unlabelled texts in the same folder: its stem or its name. Steps with a teacher
    also train on them, with the teacher's predictions as targets. Without a train file, they are
    the only training texts."""
    max_row_kib: int | None = Field(default=None, ge=1, le=2**20)
    """Maximum size of a row in KiB; longer ones are set aside. None: 512, and 16,384 with document
    = "file"."""

    @field_validator("delimiter")
    @classmethod
    def _delimiter_is_a_sign(cls, delimiter: str | None) -> str | None:
        if delimiter is not None and (len(delimiter) != 1 or delimiter in NO_DELIMITERS):
            raise ValueError(
                "must be one character other than a quotation mark or a line end, got "
                f"{delimiter!r}; "
                r'write ";", "\t" or "|"'
            )
        return delimiter

    @model_validator(mode="after")
    def _label_names_fit(self) -> Self:
        names = self.label_names or ()
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"label_names: {', '.join(map(repr, twice))} is listed twice; each class needs its "
                "own name"
            )
        if names and not self.kind.allows(len(names)):
            raise ValueError(
                f"label_names names {len(names)} classes, but {self.objective} has none; remove "
                f'label_names, or objective = "{self.objective}"'
            )
        if self.negatives is not None and not self.kind.ranks:
            raise ValueError(
                f"negatives are for ranking tasks, and {self.objective} ranks nothing; remove "
                "negatives"
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
                f"row of train, {self.validation_share:.0%} of which is held out; remove {split}"
            )
        return self

    @model_validator(mode="after")
    def _a_teacher_can_answer(self) -> Self:
        if self.unlabelled and self.kind.answer != "row":
            advice = (
                "use a generate step to let the teacher write targets"
                if self.kind.writes
                else "this objective needs no labels, so add these texts to train"
            )
            raise ValueError(
                "a teacher can label unlabelled texts with a class or a number, but the objective "
                f"is {self.objective}; remove unlabelled: {advice}"
            )
        return self

    @property
    def kind(self) -> Kind:
        """The task of the data."""
        return KINDS[self.objective]

    @property
    def max_row_bytes(self) -> int:
        """`max_row_kib` in bytes, with its default filled in."""
        usual = MAX_DOCUMENT_KIB if self.document == "file" else MAX_ROW_KIB
        return 1024 * (usual if self.max_row_kib is None else self.max_row_kib)


class HubData(DataSettings):
    """Running text from a data set on the Hugging Face hub, read as a stream; needs `datasets`."""

    source: Literal["hub"] = "hub"
    name: str
    """owner/name."""
    config: str | None = None
    """Name of a configuration; None: the default one."""
    split: str = "train"
    """The split to read documents from."""
    revision: str
    """Commit to read. A branch can change, and a resumed run would then read other rows."""
    text: str = "text"
    """Column of the text."""
    validation: str | None = None
    """The validation split; None: a hundredth of `split`, chosen by a hash of the text and kept out
    of every corpus."""
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
                "train_rows needs rows in memory, and this source is a stream; set max_documents "
                f"= {self.train_rows} in the tokenize step"
            )
        return self

    kind: ClassVar[Kind] = CAUSAL_LM


class StdlibDocsData(DataSettings):
    """Sentences of the docstrings of the running Python's standard library, labelled by area. Needs
    no download."""

    source: Literal["stdlib_docs"] = "stdlib_docs"

    kind: ClassVar[Kind] = CLASSIFICATION


class StdlibTextData(DataSettings):
    """Running text: the sources of the running Python's standard library and its language
    reference. Needs no download."""

    source: Literal["stdlib_text"] = "stdlib_text"

    kind: ClassVar[Kind] = CAUSAL_LM


TextConfig = Annotated[
    GlueData | SummarizationData | FilesData | HubData | StdlibDocsData | StdlibTextData,
    Field(discriminator="source"),
]
"""Any source of texts."""


class CorpusData(DataSettings):
    """Chunks of another run: the output of a tokenize or select step."""

    source: Literal["corpus"] = "corpus"
    path: str
    """Folder of the step: runs/<name>/<step>."""
    corpus: str | None = None
    """For a selection: the folder of its corpus; None: the folder recorded when the selection was
    made."""
    validation: TextConfig | None = None
    """A data table whose validation split is used. None: the corpus can be scored, selected from
    and exported, but not trained on."""

    @model_validator(mode="after")
    def _chunks_are_not_limited(self) -> Self:
        fields = DataSettings.model_fields.items()
        given = [name for name, field in fields if getattr(self, name) != field.default]
        if given:
            raise ValueError(
                f"{given[0]} is a setting for texts and does not apply to a corpus; remove it, or "
                "choose chunks with a select step"
            )
        return self

    kind: ClassVar[Kind] = CAUSAL_LM


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
