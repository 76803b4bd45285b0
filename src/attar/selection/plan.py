"""Cost of a corpus, of its scores and of a selection. Tokens are estimated from some of the
documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from attar.artifacts import MIB, read_result
from attar.data.corpus.config import END
from attar.data.corpus.learned_tokenizer import learn_tokenizer, require_size, write_learned
from attar.data.corpus.packing import Packer
from attar.data.corpus.sentence_ends import sentence_ends
from attar.data.corpus.token_store import PARTS, Corpus
from attar.data.corpus.tokenizing import DocumentTokenizer
from attar.data.corpus.view import ALL, CorpusView
from attar.data.documents import Document
from attar.data.packing import document_tokenizer
from attar.data.tables import Split, TextData
from attar.models.cost import Cost
from attar.numerics.selection import share_of
from attar.planning import (
    CORPUS_BYTES_A_TOKEN,
    OPEN_SECONDS,
    RUNTIME_MIB,
    SAMPLED_TEXTS,
    SHARD_BYTES_A_TOKEN,
    Head,
    PlanContext,
    PlannedChunks,
    PlannedCorpus,
    PlannedTokenizer,
)
from attar.selection.config import ExportDataStep, ProxyStep, ScoreStep, SelectStep, TokenizeStep
from attar.selection.flops import OfflineFlops
from attar.selection.tokenize import RESERVED, SCORED, is_read, part_of, require_parts
from attar.step import StepPlan
from attar.tasks.table import CAUSAL_LM

TOKENS_A_SECOND = 250_000
"""To tokenize, pack and write, on two cores."""
LEARNED_BYTES_A_SECOND = 5e6
"""To hash, count and merge text into a tokenizer: 11.3 MB of sources took 2.7 s of processor
time."""
LEARNED_BYTES = 2**21
"""Amount of text from which a plan learns a tokenizer; takes about a second."""
LONGEST_LETTER = 4
"""Maximum number of bytes of a character in UTF-8."""
EXPORTED_TOKENS_A_SECOND = 2_000_000
"""To read a corpus and write it in another format, on one core; assumed, not measured."""
CHUNK_BYTES = 32
"""Size of a chunk's scores on disk."""
SELECTED_BYTES = 24
"""Memory of a selection, per chunk."""
MINHASH_BYTES, MINHASH_TOKENS_A_SECOND = 4100, 3e6
"""Memory of a chunk's signature and index entry; and tokens per second on one core."""


def plan_tokenize(config: TokenizeStep, context: PlanContext) -> StepPlan:
    """Plan a corpus. Registers its table's rows and its number of chunks for the steps that read
    it."""
    if folder := context.made.get(context.name):
        return _plan_made_corpus(config, context, folder)
    if config.expect_tokens is not None:
        return _plan_expected_corpus(config, context, config.expect_tokens)
    rows = context.texts.loaded(config.data, texts_only=True)
    train = rows.split("train")
    shared = [row for row, texts in enumerate(train.texts) if is_read(texts, config.share)]
    limited = train.rows(shared[: config.max_documents])
    texts: dict[str, list[tuple[str, ...]]] = {part: [] for part in PARTS}
    for each in limited.texts:
        texts[part_of(each, config.reserve)].append(each)
    require_parts(config, len(limited), len(texts[RESERVED]), context.name)
    tokenizer, learning = _tokenizer(config, context)
    chunks = {part: _packed(config, those, tokenizer.folder) for part, those in texts.items()}
    _found_by_readers(config, context, tokenizer, _running(rows, limited), chunks)
    return _corpus_plan(config, chunks, len(limited), learning)


def _running(rows: TextData, train: Split) -> TextData:
    """The table as running text, with another train split."""
    text = replace(rows, objective=CAUSAL_LM.name, label_names=(), metrics=CAUSAL_LM.metrics)
    return replace(text, splits={**rows.splits, "train": train})


def _found_by_readers(
    config: TokenizeStep,
    context: PlanContext,
    tokenizer: PlannedTokenizer,
    rows: TextData,
    chunks: Mapping[str, PlannedChunks],
) -> None:
    """Register the corpus for the plans of the steps that read it."""
    context.tokenizers[context.name] = tokenizer
    context.corpora[context.name] = PlannedCorpus(tokenizer, config.max_length)
    context.texts.add(context.name, rows, chunks)


def _plan_expected_corpus(config: TokenizeStep, context: PlanContext, tokens: int) -> StepPlan:
    """Plan a corpus of this many tokens, in full chunks."""
    unread = context.texts.leave_unread(config.data)
    tokenizer, learning = _tokenizer(config, context)
    chunks: dict[str, PlannedChunks] = {}
    for part, share in ((RESERVED, config.reserve), (SCORED, 1 - config.reserve)):
        count = round(share * tokens / (config.max_length + 1))
        chunks[part] = PlannedChunks(count, count * config.max_length, is_exact=False)
    _found_by_readers(config, context, tokenizer, unread, chunks)
    planned = _corpus_plan(config, chunks, 0, learning)
    return replace(planned, counts={"tokens": tokens}, is_estimate=True)


def _plan_made_corpus(config: TokenizeStep, context: PlanContext, folder: Path) -> StepPlan:
    corpus = Corpus.open(folder)
    whole = CorpusView(corpus).split()
    running = _running(context.texts.judged(config.data), whole)
    chunks = {part: PlannedChunks.of(CorpusView(corpus, part)) for part in PARTS}
    tokenizer = PlannedTokenizer(folder, corpus.about["vocabulary"], corpus.about["end_id"])
    _found_by_readers(config, context, tokenizer, running, chunks)
    documents = read_result(folder).metrics["documents"]
    return _corpus_plan(config, chunks, documents, 0.0)


def _corpus_plan(
    config: TokenizeStep, chunks: Mapping[str, PlannedChunks], documents: int, learning: float
) -> StepPlan:
    """The plan, from the counts.

    Args:
        learning: seconds to learn the tokenizer.
    """
    tokens = sum(part.tokens + part.chunks for part in chunks.values())
    return StepPlan(
        memory_mib=RUNTIME_MIB + min(tokens, config.shard_tokens) * SHARD_BYTES_A_TOKEN / MIB,
        disk_mib=tokens * CORPUS_BYTES_A_TOKEN / MIB,
        seconds=OPEN_SECONDS + learning + tokens / TOKENS_A_SECOND,
        counts={"documents": documents},
    )


def _packed(config: TokenizeStep, texts: Sequence[tuple[str, ...]], folder: Path) -> PlannedChunks:
    """Estimate the chunks of these documents from a sample. Exact if all documents are sampled,
    unless there are several sources or the tokenizer has yet to be learned."""
    sample = texts[:: max(1, len(texts) // SAMPLED_TEXTS)]
    tokenizer, end_id = document_tokenizer(folder)
    documents = ((SCORED, Document(row, "", each)) for row, each in enumerate(sample))
    packer = Packer(sentence_ends(tokenizer, end_id), config.max_length + 1)
    lengths = [
        len(chunk.ids)
        for document in DocumentTokenizer(tokenizer, end_id).tokenized(documents)
        for chunk in packer.add(document)
    ]
    lengths += [len(chunk.ids) for chunk in packer.flush()]
    scale = len(texts) / max(len(sample), 1)
    is_one_source = config.source_column is None and isinstance(config.data, str)
    return PlannedChunks(
        round(len(lengths) * scale),
        round((sum(lengths) - len(lengths)) * scale),
        is_exact=len(sample) == len(texts) and is_one_source and isinstance(config.tokenizer, str),
    )


def _tokenizer(config: TokenizeStep, context: PlanContext) -> tuple[PlannedTokenizer, float]:
    """The tokenizer, and the seconds to learn it. If the step will learn it, a stand-in is learned
    here from a little of the same text."""
    wanted = config.tokenizer
    if isinstance(wanted, str):
        return context.tokenizer(wanted), 0.0
    data = context.texts.loaded(wanted.train_on, texts_only=True)
    texts = [" ".join(row) for row in data.split("train").texts]
    num_bytes = sum(map(len, texts))
    sample = texts[:: max(1, num_bytes // LEARNED_BYTES)]
    learned = learn_tokenizer(sample, wanted)
    if len(sample) == len(texts) and num_bytes * LONGEST_LETTER <= wanted.max_bytes:
        require_size(learned, wanted, context.name)  # the step will learn the same one
    folder = context.scratch / context.name
    write_learned(learned, folder)
    seconds = min(num_bytes, wanted.max_bytes) / LEARNED_BYTES_A_SECOND
    return PlannedTokenizer(folder, wanted.vocab_size, learned.token_to_id(END)), seconds


def plan_score(config: ScoreStep, context: PlanContext) -> StepPlan:
    """Plan a forward pass over a part of the corpus, or a sample of it."""
    length = context.corpus(config.data).max_length
    model = replace(context.model(config.model, Head(None, CAUSAL_LM), length), max_length=length)
    chunks, tokens = _chunks(config.data, config.part, context)
    chunks = min(chunks, config.chunks or chunks)
    flops = chunks * model.cost.flops(1, tokens)
    block_mib = model.activation_mib(tokens) / model.cost.model.config.num_hidden_layers
    return StepPlan(
        flops=flops,
        memory_mib=RUNTIME_MIB + model.size_mib + config.batch_tokens / tokens * block_mib,
        disk_mib=chunks * CHUNK_BYTES / MIB,
        seconds=OPEN_SECONDS + context.seconds(forward=flops),
        passes=1,
        note=_saved_by_proxy(config, chunks, flops, context),
    )


def plan_proxy(config: ProxyStep, context: PlanContext) -> StepPlan:
    """Plan the training of a proxy. Registers its body for the score steps that use it."""
    length = context.corpus(config.data).max_length
    model = context.model(config.model, None, length)
    body: Any = model.cost.model.base_model
    model = replace(model, cost=Cost(body), max_length=length)
    context.models[context.name] = model
    sample = _settings_of_scores(config.teacher, context)
    chunks, tokens = _chunks(config.data, sample["part"], context)
    chunks = min(chunks, sample["chunks"] or chunks)
    held_out = share_of(config.held_out, chunks)
    training, forward = config.training, model.cost.flops(1, tokens)
    rows = max(1, chunks - held_out)
    steps = training.num_steps(rows, rows * tokens)
    read = training.rows_read(steps, rows)
    flops = round(forward * (3 * read + held_out / 2 * (2 + min(config.evaluations, steps))))
    text_mib = model.activation_mib(tokens)
    micro_batch = config.micro_batch_size or config.batch_size
    params = model.cost.num_params
    return StepPlan(
        num_params=params,
        flops=flops,
        memory_mib=RUNTIME_MIB + 16 * params / MIB + micro_batch * text_mib,
        disk_mib=model.size_mib + 2 * 12 * params / MIB,
        seconds=OPEN_SECONDS + context.seconds(training=flops),
        passes=steps / -(-rows // config.batch_size),
        texts_at_once=micro_batch,
        text_mib=text_mib,
        lowered_by="micro_batch_size",
    )


def _settings_of_scores(word: str, context: PlanContext) -> Mapping[str, Any]:
    """`part` and `chunks` of a score step, in this recipe or in another run."""
    step = context.recipe["steps"].get(word)
    return read_result(context.recipe_folder / word).metrics if step is None else step


def _chunks(corpus: str, part: str, context: PlanContext) -> tuple[int, int]:
    """Number of chunks in a part, and their mean number of tokens."""
    found = context.texts.chunks_of(corpus, part)
    assert found is not None, "check refuses scores of anything but a corpus"
    return found.chunks, found.mean_tokens


def _saved_by_proxy(config: ScoreStep, chunks: int, flops: int, context: PlanContext) -> str:
    """Total cost of scoring with a proxy, compared with the teacher alone; "": the model is not a
    proxy.
    """
    made = context.recipe["steps"].get(config.model, {})
    if made.get("run") != "proxy" or not {made["teacher"], made["reference"]} <= {*context.plans}:
        return ""
    teacher, reference, proxy = (
        context.plans[name] for name in (made["teacher"], made["reference"], config.model)
    )
    sample = context.recipe["steps"][made["teacher"]]["chunks"] or chunks
    return OfflineFlops(
        teacher=teacher.flops,
        reference=reference.flops,
        training=proxy.flops,
        predicting=flops,
        sampled=min(sample, chunks) / max(chunks, 1),
    ).sentence()


def plan_select(config: SelectStep, context: PlanContext) -> StepPlan:
    """Plan a selection. Registers a share of the corpus's rows for the steps that read it."""
    corpus = context.texts.loaded(config.data)
    train = corpus.split("train")
    scores = _settings_of_scores(config.teacher or config.scores or "", context)
    scored = context.texts.chunks_of(config.data, scores["part"])
    assert scored is not None, "check refuses to select from anything but a corpus"
    made = [context.made.get(step) for step in (config.data, context.name)]
    if made[0] is not None and made[1] is not None:
        view = CorpusView.of_selection(Corpus.open(made[0]), made[1])
        kept, chosen = view.split(), PlannedChunks.of(view)
    else:
        kept = train.rows(range(max(1, share_of(config.keep, len(train)))))
        count, tokens = share_of(config.keep, scored.chunks), round(config.keep * scored.tokens)
        chosen = PlannedChunks(max(1, count), tokens, is_exact=False)
    splits = {**corpus.splits, "train": kept}
    context.texts.add(context.name, replace(corpus, splits=splits), {ALL: chosen})
    context.corpora[context.name] = form = context.corpus(config.data)
    chunks, tokens = scored.chunks, scored.tokens
    memory, seconds, flops = RUNTIME_MIB + chunks * SELECTED_BYTES / MIB, OPEN_SECONDS, 0
    if config.duplicates is not None:
        memory += chunks * MINHASH_BYTES / MIB
        seconds += tokens / MINHASH_TOKENS_A_SECOND
    if config.diversity is not None:
        encoder = context.model(config.diversity.model, None, config.diversity.max_length)
        read = min(form.max_length, config.diversity.max_length)
        flops = 3 * min(chunks, config.diversity.chunks) * encoder.cost.flops(1, read)
        memory += encoder.size_mib
        seconds += OPEN_SECONDS + context.seconds(forward=flops)
    return StepPlan(
        flops=flops,
        memory_mib=memory,
        disk_mib=chunks * CHUNK_BYTES / MIB,
        seconds=seconds,
    )


def plan_export_data(config: ExportDataStep, context: PlanContext) -> StepPlan:
    """Plan an export, assuming that the texts compress about as well as in the corpus."""
    chunks = context.texts.chunks_of(config.data, config.part)
    tokens = 0 if chunks is None else chunks.tokens  # None for plain texts, which the step rejects
    return StepPlan(
        memory_mib=RUNTIME_MIB,
        disk_mib=tokens * CORPUS_BYTES_A_TOKEN / MIB,
        seconds=tokens / EXPORTED_TOKENS_A_SECOND,
    )
