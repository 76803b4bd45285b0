"""The table of the nine zero-shot tasks: their rows, prompts and metrics.

A row gives pairs of context and continuation. For multiple choice, there is one pair per answer,
and the prediction is the pair with the highest score:

    acc        log p                                 WinoGrande, Social IQa, StoryCloze
    acc_norm   log p / characters of the answer      HellaSwag, OpenBookQA, ARC, PIQA

In WinoGrande the answers differ in the *context*, and log p of the same continuation is compared.
LAMBADA asks for the last word of a passage: a row is correct if greedy decoding gives that word.

`harness` are the fields of the corresponding task of lm-evaluation-harness (0.4.13). A test checks
that both give the same strings, and a step with `harness = "both"` compares them again. Rows from
the hub are converted to the format of the files. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

Row = Mapping[str, Any]
Pair = tuple[str, str]
"""Context and continuation."""
TaskMetric = Literal["acc", "acc_norm"]
CHOICES: Mapping[str, Any] = {"doc_to_target": "label", "doc_to_choice": "choices"}
QUESTION, SOCIAL = "Question: {}\nAnswer:", "Q: {}\nA:"


@dataclass(frozen=True)
class Question:
    """A row as a question."""

    pairs: tuple[Pair, ...]
    label: int
    """Index of the correct answer."""
    lengths: tuple[int, ...]
    """Characters of each answer, for acc_norm."""

    @property
    def chance(self) -> float:
        """Accuracy of random guessing; 0 for generated words."""
        return 1 / len(self.pairs) if len(self.pairs) > 1 else 0.0


@dataclass(frozen=True)
class HubPlace:
    """Location of a task's rows on the hub."""

    name: str
    config: str | None
    split: str
    revision: str
    columns: tuple[str, ...]
    row: Callable[[Row], Row]
    """Converts a row of the hub to a row of a file."""


@dataclass(frozen=True)
class ZeroShotTask:
    name: str
    title: str
    split: str | None
    """Stem of the file in the task's folder; None: the only file there."""
    columns: tuple[str, ...]
    """Columns of a row."""
    ask: Callable[[Row], Question]
    metric: TaskMetric
    harness: Mapping[str, Any]
    hub: HubPlace | None
    mend: Callable[[Row], Row] = dict
    """Converts a row of a file to a row of the harness's dataset."""
    writes: bool = False
    """Whether the answer is a generated word, instead of one of several choices."""


def _answers(row: Row, prompt: str) -> Question:
    """A question with a common prompt; each answer is preceded by a space."""
    context = prompt.format(row["context"])
    answers: Sequence[str] = row["choices"]
    return Question(
        tuple((context, f" {answer}") for answer in answers),
        int(row["label"]),
        tuple(len(answer) for answer in answers),
    )


_plain, _question, _social = (partial(_answers, prompt=p) for p in ("{}", QUESTION, SOCIAL))


def _last_word(row: Row) -> Question:
    return Question(((row["context"], f" {row['target']}"),), 0, (len(row["target"]),))


def _in_context(row: Row) -> Question:
    after = row["continuation"]
    pairs = tuple((context, f" {after}") for context in row["contexts"])
    return Question(pairs, int(row["label"]), tuple(len(after) for _ in pairs))


STORY = tuple(f"InputSentence{i}" for i in range(1, 5))
ENDINGS = ("RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2")


def _story(row: Row) -> Question:
    endings = [row[name] for name in ENDINGS]
    content = {"context": " ".join(row[name] for name in STORY), "choices": endings}
    return _answers({**content, "label": int(row["AnswerRightEnding"]) - 1}, "{}")


SENTENCE_END = re.compile(r"[.!?]\s+")


def with_capital(context: str) -> str:
    """Capitalize the unfinished last sentence of a HellaSwag context.

    The harness does this when it joins two columns; the files have only the joined string.

    Example:
        >>> with_capital("Roof: A man sits on a roof. he"), with_capital("Roof: A man sits.")
        ('Roof: A man sits on a roof. He', 'Roof: A man sits.')
    """
    ends = [match.end() for match in SENTENCE_END.finditer(context)]
    start = ends[-1] if ends else context.find(": ") + 2
    last = context[start:]
    if not last[:1].islower() or last.rstrip()[-1:] in ".!?":
        return context
    return context[:start] + last.capitalize()


def _with_capital(row: Row) -> Row:
    return {**row, "context": with_capital(row["context"])}


def _hub_hellaswag(row: Row) -> Row:
    context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    choices = [_without_marks(ending) for ending in row["endings"]]
    return {"context": _without_marks(context), "choices": choices, "label": row["label"]}


def _without_marks(text: str) -> str:
    """Remove WikiHow's marks in brackets."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _hub_lambada(row: Row) -> Row:
    context, _, target = row["text"].rpartition(" ")
    return {"context": context, "target": target}


def _hub_winogrande(row: Row) -> Row:
    before, _, after = row["sentence"].partition("_")
    contexts = [before + row[option] for option in ("option1", "option2")]
    return {"contexts": contexts, "continuation": after.strip(), "label": int(row["answer"]) - 1}


def _hub_lettered(row: Row) -> Row:
    choices = row["choices"]
    question = row["question_stem"] if "question_stem" in row else row["question"]
    label = list(choices["label"]).index(row["answerKey"].strip())
    return {"context": question, "choices": list(choices["text"]), "label": label}


def _hub_piqa(row: Row) -> Row:
    choices = [row["sol1"], row["sol2"]]
    return {"context": row["goal"], "choices": choices, "label": row["label"]}


def _hub_social(row: Row) -> Row:
    choices = [row[f"answer{letter}"] for letter in "ABC"]
    context = f"{row['context']} {row['question']}"
    return {"context": context, "choices": choices, "label": int(row["label"]) - 1}


def _arc(config: str) -> HubPlace:
    return HubPlace(
        *("allenai/ai2_arc", config, "test", "210d026faf9955653af8916fad021475a3f00453"),
        ("question", "choices", "answerKey"),
        _hub_lettered,
    )


CHOICE_COLUMNS = ("context", "choices", "label")
ALL: tuple[ZeroShotTask, ...] = (
    ZeroShotTask(
        name="hellaswag",
        title="HellaSwag",
        split="validation",
        columns=CHOICE_COLUMNS,
        ask=_plain,
        metric="acc_norm",
        harness={"doc_to_text": "context", **CHOICES},
        mend=_with_capital,
        hub=HubPlace(
            *("Rowan/hellaswag", None, "validation", "218ec52e09a7e7462a5400043bb9a69a41d06b76"),
            ("activity_label", "ctx_a", "ctx_b", "endings", "label"),
            _hub_hellaswag,
        ),
    ),
    ZeroShotTask(
        name="lambada",
        title="LAMBADA",
        split="test",
        columns=("context", "target"),
        ask=_last_word,
        metric="acc",
        harness={"doc_to_text": "context", "doc_to_target": "{{' '+target}}"},
        writes=True,
        hub=HubPlace(
            *("EleutherAI/lambada_openai", "default", "test"),
            "900124bf3b8235c6daf21033af9948b3f07346c4",
            ("text",),
            _hub_lambada,
        ),
    ),
    ZeroShotTask(
        name="winogrande",
        title="WinoGrande",
        split="validation",
        columns=("contexts", "continuation", "label"),
        ask=_in_context,
        metric="acc",
        harness={
            "doc_to_text": "label",
            "doc_to_target": "continuation",
            "doc_to_choice": "contexts",
        },
        hub=HubPlace(
            *("allenai/winogrande", "winogrande_xl", "validation"),
            "01e74176c63542e6b0bcb004dcdea22d94fb67b5",
            ("sentence", "option1", "option2", "answer"),
            _hub_winogrande,
        ),
    ),
    ZeroShotTask(
        name="openbookqa",
        title="OpenBookQA",
        split="test",
        columns=CHOICE_COLUMNS,
        ask=_plain,
        metric="acc_norm",
        harness={"doc_to_text": "context", **CHOICES},
        hub=HubPlace(
            *("allenai/openbookqa", "main", "test", "388097ea7776314e93a529163e0fea805b8a6454"),
            ("question_stem", "choices", "answerKey"),
            _hub_lettered,
        ),
    ),
    ZeroShotTask(
        name="arc_easy",
        title="ARC-Easy",
        split="test",
        columns=CHOICE_COLUMNS,
        ask=_question,
        metric="acc_norm",
        harness={"doc_to_text": QUESTION.format("{{context}}"), **CHOICES},
        hub=_arc("ARC-Easy"),
    ),
    ZeroShotTask(
        name="arc_challenge",
        title="ARC-Challenge",
        split="test",
        columns=CHOICE_COLUMNS,
        ask=_question,
        metric="acc_norm",
        harness={"doc_to_text": QUESTION.format("{{context}}"), **CHOICES},
        hub=_arc("ARC-Challenge"),
    ),
    ZeroShotTask(
        name="piqa",
        title="PIQA",
        split="validation",
        columns=CHOICE_COLUMNS,
        ask=_question,
        metric="acc_norm",
        harness={"doc_to_text": QUESTION.format("{{context}}"), **CHOICES},
        hub=HubPlace(
            *("baber/piqa", None, "validation", "142f6d7367fd9877f0fb3b5734ea6a545f54cdd1"),
            ("goal", "sol1", "sol2", "label"),
            _hub_piqa,
        ),
    ),
    ZeroShotTask(
        name="social_iqa",
        title="Social IQa",
        split="validation",
        columns=CHOICE_COLUMNS,
        ask=_social,
        metric="acc",
        harness={"doc_to_text": SOCIAL.format("{{context}}"), **CHOICES},
        hub=HubPlace(
            *("lighteval/siqa", None, "validation", "54c6a1f8cb6daf4f5abf24a601852612fb35eb25"),
            ("context", "question", "answerA", "answerB", "answerC", "label"),
            _hub_social,
        ),
    ),
    ZeroShotTask(
        name="storycloze",
        title="StoryCloze",
        split=None,
        columns=(*STORY, *ENDINGS, "AnswerRightEnding"),
        ask=_story,
        metric="acc",
        harness={
            "doc_to_text": f"{{{{[{', '.join(STORY)}]|join(' ')}}}}",
            "doc_to_target": "{{AnswerRightEnding|int - 1}}",
            "doc_to_choice": f"{{{{[{', '.join(ENDINGS)}]}}}}",
        },
        hub=None,
    ),
)
TASKS: Mapping[str, ZeroShotTask] = {task.name: task for task in ALL}
"""Name → task, in the order of reports."""
STORYCLOZE = "storycloze"
"""Requires a license for each user, so averages are given with and without it."""
