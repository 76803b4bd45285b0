"""Prompts for a decoder to continue.

The problem: a tokenizer appends end tokens ([SEP], </s>) to a text, after which a model would start
something new; and truncation at the end would cut off the question. The idea: keep special tokens
before the text, drop those after it, and truncate long prompts at the beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Formatter

import numpy as np
from tokenizers import Tokenizer

from attar.data.tables import TextData
from attar.data.tokenize import Encoded, encodings, open_tokenizer
from attar.errors import DataError, UsageError

INPUTS = ("input_ids", "attention_mask")


def prompts(model_folder: Path, texts: Sequence[str], max_length: int) -> Encoded:
    """Tokenize prompts; longer ones are truncated to their last `max_length` tokens.

    Padding is token 0 and never read.

    Raises:
        DataError: a prompt has no tokens, so nothing can follow.
    """
    tokenizer = open_tokenizer(model_folder)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    before = _specials_before(tokenizer)
    room = max(max_length - len(before), 1)
    rows: list[np.ndarray] = []
    is_cut: list[bool] = []
    for encoding in encodings(tokenizer, texts):
        rows.append(np.array([*before, *encoding.ids[-room:]], dtype=np.int32))
        is_cut.append(len(encoding.ids) > room)
    empty = [row for row, ids in enumerate(rows) if len(ids) == 0]
    if empty or not rows:
        raise DataError(
            f"{len(empty)} of {len(rows)} prompts have no token (first: row "
            f"{empty[0] if empty else 0}), so there is nothing to continue; add words to template"
        )
    return Encoded.of(rows, INPUTS, 0, is_cut)


def _specials_before(tokenizer: Tokenizer) -> list[int]:
    """Special tokens that the tokenizer adds before a text."""
    encoding = tokenizer.encode("x")
    specials = encoding.special_tokens_mask
    count = next((i for i, is_special in enumerate(specials) if not is_special), 0)
    return list(encoding.ids[:count])


def fitting_template(template: str | None, data: TextData, step: str) -> str:
    """The template for a row's texts: the step's, else the data's; {0} if neither is set and rows
    have one text.

    Raises:
        UsageError: the template is invalid or refers to a text that rows do not have; or rows have
            several texts and there is no template.
    """
    count = data.num_texts
    known = [f"{{{i}}}" for i in range(count)]
    template = template or data.template
    if template is None:
        if count > 1:
            raise UsageError(
                f"{step}: a row of data {data.name!r} has {count} texts; say how they are read "
                f'together, such as template = "first: {known[0]} second: {known[1]}"'
            )
        return known[0]
    try:
        named = [f"{{{name}}}" for _, name, _, _ in Formatter().parse(template) if name is not None]
        if set(named) <= set(known):
            template.format(*known)  # {0:d} and {0!z} are valid placeholders but fail to format
    except (ValueError, IndexError, KeyError) as error:
        raise UsageError(
            f"{step}: template {template!r} cannot be read: {error}; texts are written "
            f"{', '.join(known)}, a brace of the text itself {{{{ or }}}}"
        ) from error
    unknown = [name for name in named if name not in known]
    if unknown or not named:
        raise UsageError(
            f"{step}: template {template!r} names {', '.join(unknown) or 'no text'}; a row of data "
            f"{data.name!r} has {', '.join(known)}"
        )
    return template
