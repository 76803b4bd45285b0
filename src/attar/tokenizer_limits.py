"""Safety checks of an untrusted `tokenizer.json`, before the tokenizer is built.

The `tokenizers` library executes what the file says: replacements that multiply the length of a
text, regular expressions with exponential time, a template with undefined tokens (a panic), ids
that overflow. All of these are checked from the file alone.

    a normalizer lengthens a text at most by the product of the factors of its steps
    Replace "x" by content    max(1, len(content) / len("x"));  of a regular expression: 1 + content
    Precompiled (charsmap)    the longest replacement in its table
    NFKC, NFKD                18, the longest decomposition in Unicode (U+FDFA)

A regular expression can take exponential time when a repeated group holds a repetition or an
alternative, or when a group is called again; none of the published tokenizers has either. Left
out: expressions of polynomial time, which those tokenizers have too (`\\s*[\\r\\n]+`); Oniguruma
gives up after 10 million steps at one place.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from attar.errors import AttarError, ModelError
from attar.untrusted import named_values

MAX_TOKENIZER_BYTES = 64 * 2**20
"""The largest known tokenizer.json, with 262,144 entries, has 33 MB."""
MAX_EXPANSION = 1000
"""Published tokenizers stay below 40."""
MAX_STEPS = 32
"""Maximum number of steps of a normalizer or pre-tokenizer."""
MAX_TEMPLATE_PIECES = 32
MAX_PATTERN = 4096
"""Maximum length of a regular expression; GPT-4o's have 400 characters."""
MAX_WORD = 1000
"""Maximum word length for WordPiece, whose cost is quadratic; BERT uses 100."""
MAX_ID = 2**31 - 1
"""Ids are stored as int32."""
UNICODE_EXPANSION = 18
MAX_COUNT = 10_000
"""Maximum product of nested repetition counts, which are expanded at compilation."""
REFERENCES = "gk123456789"
"""Escapes that call a group or refer to its match, so that a group can call itself."""

Json = Mapping[str, Any]


def is_of_the_library(error: BaseException) -> bool:
    """Whether an error may come from `tokenizers`: a plain Exception, or, for a panic in Rust, a
    BaseException other than KeyboardInterrupt.
    """
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


@contextmanager
def tokenizer_errors(what: str) -> Generator[None]:
    """Convert errors of the `tokenizers` library to a `ModelError` that starts with `what`."""
    try:
        yield
    except AttarError:
        raise
    except BaseException as error:
        if not is_of_the_library(error):
            raise
        raise ModelError(f"{what} ({error}); get the model again") from error


def tokenizer_faults(content: Any) -> Iterator[str]:
    """Problems in the content of a `tokenizer.json`; none if it is safe to build."""
    if not isinstance(content, dict):
        yield "it is not a JSON object"
        return
    plain = cast("dict[str, Any]", content)
    for role in ("normalizer", "pre_tokenizer", "decoder", "post_processor"):
        steps = list(_steps(plain.get(role)))
        if len(steps) > MAX_STEPS:
            yield f"its {role} has {len(steps)} steps, at most {MAX_STEPS} are run"
    expansion = 1.0
    for step in _steps(plain.get("normalizer")):
        expansion *= _factor(step)
    if expansion > MAX_EXPANSION:
        yield (
            f"its normalizer can make a text {expansion:.3g} times longer, at most "
            f"{MAX_EXPANSION} times is allowed"
        )
    for name, pattern in named_values(plain, apart_from=("vocab", "merges", "added_tokens")):
        if name != "Regex" or not isinstance(pattern, str):
            continue
        if len(pattern) > MAX_PATTERN or _can_explode(pattern):
            yield f"the regular expression {pattern[:80]!r} can take exponential time"
    yield from _template_faults(plain.get("post_processor"))
    yield from _model_faults(plain)


def _steps(part: Any) -> Iterator[Json]:
    """The steps of a sequence, at any nesting depth."""
    if not isinstance(part, dict):
        return
    step = cast("dict[str, Any]", part)
    inner = [
        value
        for name in ("normalizers", "pretokenizers", "decoders", "processors")
        if isinstance(step.get(name), list)
        for value in step[name]
    ]
    if not inner:
        yield step
    for value in inner:
        yield from _steps(value)


def _factor(step: Json) -> float:
    kind = step.get("type")
    if kind in ("NFKC", "NFKD"):
        return UNICODE_EXPANSION
    if kind == "Precompiled":
        return _longest_replacement(step.get("precompiled_charsmap"))
    if kind == "Prepend":
        return 1 + len(str(step.get("prepend", "")))
    if kind != "Replace":
        return 1
    content, pattern = len(str(step.get("content", ""))), step.get("pattern")
    plain = pattern.get("String") if isinstance(pattern, dict) else None
    if isinstance(plain, str) and plain:
        return max(1.0, content / len(plain))
    return 1 + content


def _longest_replacement(charsmap: Any) -> int:
    """SentencePiece's table: 4 bytes (size of the trie), the trie, then texts that end in NUL."""
    try:
        raw = base64.b64decode(charsmap if isinstance(charsmap, str) else "")
    except (binascii.Error, ValueError):
        return 1  # not a table; the library raises an error
    texts = raw[4 + int.from_bytes(raw[:4], "little") :].split(b"\0")
    return max(1, *(len(text.decode("utf-8", "replace")) for text in texts))


_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|\[:\w+:\]|[^\]\\])*\]|\(\?[a-z-]*[:=!>]|\(\?<[=!]|\(\?<\w+>"
    r"|\{\d*,?\d*\}|.",
    re.DOTALL,
)
"""An escape, a class of characters, the start of a group, a counted repetition, or one sign."""


def _can_explode(pattern: str) -> bool:
    r"""Whether a repeated group is of varying length inside, a group is called again, or counts
    multiply beyond `MAX_COUNT`.

    Example:
        >>> [_can_explode(p) for p in (r"(a+)+b", r"(a|aa)*", r"(\d{3})+", r"\p{L}+|\s+(?!\S)")]
        [True, True, False, False]
    """
    groups = [_Part()]
    before = _Part()
    for match in _TOKEN.finditer(pattern):
        token = match.group()
        if token[0] == "\\" and token[1:] in REFERENCES:
            return True
        low, high = _counts(token)
        if high:
            before.count *= max(low, 1) if high == math.inf else high
            if (before.varies and high > 1) or before.count > MAX_COUNT:
                return True
            groups[-1].add(_Part(low != high, before.count))
            before = _Part()
        elif token.startswith("("):
            groups.append(_Part())
        elif token == ")" and len(groups) > 1:
            before = groups.pop()
            groups[-1].add(before)
        else:
            before = _Part()
            groups[-1].varies = groups[-1].varies or token == "|"
    return False


@dataclass
class _Part:
    """A piece of a regular expression."""

    varies: bool = False
    """Whether it can match in more than one way or length."""
    count: float = 1
    """Product of the nested repetition counts."""

    def add(self, inner: _Part) -> None:
        self.varies = self.varies or inner.varies
        self.count = max(self.count, inner.count)


def _counts(token: str) -> tuple[float, float]:
    """Minimum and maximum of a quantifier such as "+" or "{1,3}"; (0, 0) if it is not one."""
    if token in ("*", "+", "?"):
        return float(token == "+"), 1 if token == "?" else math.inf
    if not (token.startswith("{") and token.endswith("}") and len(token) > 2):
        return 0, 0
    low, comma, high = token[1:-1].partition(",")
    return float(low or 0), float(high or (math.inf if comma else low))


def _template_faults(part: Any) -> Iterator[str]:
    """Check that a template uses only tokens that it defines; otherwise the library panics."""
    for step in _steps(part):
        if step.get("type") != "TemplateProcessing":
            continue
        defined = step.get("special_tokens")
        known = cast("Json", defined) if isinstance(defined, dict) else {}
        for side in ("single", "pair"):
            pieces = step.get(side)
            pieces = cast("list[Any]", pieces) if isinstance(pieces, list) else []
            if len(pieces) > MAX_TEMPLATE_PIECES:
                yield f"its template has {len(pieces)} pieces, the most is {MAX_TEMPLATE_PIECES}"
            for piece in pieces:
                special = piece.get("SpecialToken") if isinstance(piece, dict) else None
                name = special.get("id") if isinstance(special, dict) else None
                if isinstance(special, dict) and str(name) not in known:
                    yield f"its template names {name!r}, which its special_tokens do not define"


def _model_faults(plain: Json) -> Iterator[str]:
    model = plain.get("model")
    table = cast("Json", model) if isinstance(model, dict) else {}
    vocab, added = table.get("vocab"), plain.get("added_tokens")
    ids = list(cast("Json", vocab).values()) if isinstance(vocab, dict) else []
    if isinstance(added, list):
        ids += [token.get("id") for token in added if isinstance(token, dict)]
    wrong = [value for value in ids if type(value) is not int or not 0 <= value <= MAX_ID]
    if wrong:
        yield f"{len(wrong)} of its ids are not in 0 to {MAX_ID}, such as {wrong[0]!r:.40}"
    word = table.get("max_input_chars_per_word", 0)
    if type(word) is int and word > MAX_WORD:
        yield f"max_input_chars_per_word is {word}, at most {MAX_WORD} are cut"
