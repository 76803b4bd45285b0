"""A tokenizer learned from documents: byte-level BPE, by the `tokenizers` library.

The alphabet is the 256 bytes, so any text can be tokenized without unknown tokens. Ids, in this
order:

    <|endoftext|>, special tokens, 256 bytes, merges, <extra_id_S-1> … <extra_id_0>

With sentinels it is meant for an encoder-decoder, which must learn where a text ends: an end token
is appended to each text, as T5's tokenizer does.

The same documents give the same file, byte for byte, in any order and with any number of threads:
words are counted before the first merge, and of two equally frequent pairs the one with the lower
ids is merged. If there is more text than `max_bytes`, the documents with the lowest hashes are
read, a random sample that depends only on the texts. Long documents are then truncated, so that no
single document dominates the sample. Choosing the sample takes one extra pass over the documents.

Memory: the distinct words of the sample with their counts, and about 130 bytes per sampled
document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from attar.artifacts import write_bytes, write_json
from attar.data.corpus.config import END, LearnedTokenizer
from attar.data.documents import Document
from attar.data.files import text_hash
from attar.errors import DataError
from attar.special_tokens import TOKENIZER_FILE
from attar.transformers_tokenizer import OLD_BACKEND_CLASS, SETTINGS_FILE

LEAST_COUNT = 2
"""Pairs that occur less often are not merged."""
LEAST_DOCUMENTS = 16
"""A sample has at least this many documents, because each contributes at most `max_bytes` divided
by this."""
HASH = "tokenizer"
"""Hash salt of the sample, so that it is independent of the validation split and the reserved
part."""


def sampled(read: Callable[[], Iterable[Document]], max_bytes: int) -> Iterator[str]:
    """The texts with the lowest hashes, in reading order, with at most `max_bytes` bytes in total;
    long texts are truncated.

    Args:
        read: starts a new pass over the documents.
    """
    below, most = _limits(read(), max_bytes)
    return (
        document.text.encode()[:most].decode(errors="ignore")  # drops a character cut in the middle
        for document in read()
        if _hash_of(document) < below
    )


def _limits(documents: Iterable[Document], max_bytes: int) -> tuple[int, int]:
    """Upper bound of the hashes in the sample, and the maximum number of bytes read per
    document."""
    below, total, of_all, most = 2**64, 0, 0, -(-max_bytes // LEAST_DOCUMENTS)
    kept: list[tuple[int, int]] = []  # (-hash, bytes): a heap with the highest hash first
    for document in documents:
        place, size = _hash_of(document), len(document.text.encode())
        of_all += size
        if place >= below:
            continue
        size = min(size, most)
        heappush(kept, (-place, size))
        total += size
        while total > max_bytes:
            highest, size = heappop(kept)
            below = min(below, -highest)
            total -= size
    return (below, most) if of_all > max_bytes else (2**64, max_bytes)


def _hash_of(document: Document) -> int:
    return int(text_hash((HASH, *document.texts))[:16], 16)


def learn_tokenizer(texts: Iterable[str], settings: LearnedTokenizer) -> Tokenizer:
    """Train a tokenizer. It has fewer than `vocab_size` tokens if no remaining pair of tokens
    occurs twice."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size - settings.sentinels,
        min_frequency=LEAST_COUNT,
        special_tokens=settings.first_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True) for token in settings.last_tokens]
    )
    if settings.sentinels:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {END}",
            pair=f"$A {END} $B:1 {END}:1",
            special_tokens=[(END, tokenizer.token_to_id(END))],
        )
    return tokenizer


def require_size(tokenizer: Tokenizer, settings: LearnedTokenizer, step: str) -> None:
    """Raise DataError if the text was too short to learn all tokens."""
    found = tokenizer.get_vocab_size(with_added_tokens=True)
    if found < settings.vocab_size:
        raise DataError(
            f"{step}: tokenizer.vocab_size is {settings.vocab_size:,}, but data "
            f"{settings.train_on!r} gives only {found:,} tokens (no other pair of tokens occurs "
            f"{LEAST_COUNT} times); set tokenizer.vocab_size = {found} or less, add text, or raise "
            "tokenizer.max_bytes"
        )


def write_learned(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the tokenizer files of a model folder. `tokenizer.json` is written last; once it
    exists, the folder is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "tokenizer_class": OLD_BACKEND_CLASS,
        "eos_token": END,
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / SETTINGS_FILE, settings)
    write_bytes(folder / TOKENIZER_FILE, tokenizer.to_str(pretty=True).encode())
