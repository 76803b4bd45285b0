"""Tiny random models of two blocks, with a tokenizer made here: real files in the real formats,
never a download.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

WORDS = (
    "a the file socket open close read write list sort map of to in and is not good bad film movie "
    "great poor how do i you it error value returns return string number time date test run ##s "
    "##ed ##ing"
).split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_tokenizer(folder: Path) -> None:
    """A WordPiece tokenizer with BERT's template, as `tokenizer.json` and its config."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocab = {
        word: i for i, word in enumerate([*SPECIAL, *WORDS, *"abcdefghijklmnopqrstuvwxyz"])
    } | {}
    vocab = {word: i for i, word in enumerate(dict.fromkeys(vocab))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "mask_token": "[MASK]", **names}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**settings, "model_input_names": inputs})
    )


def write_tiny_bert(
    folder: Path, *, num_labels: int = 2, seed: int = 0, blocks: int = 2, positions: int = 64
) -> Path:
    """A random two-block BERT classifier saved as a Hugging Face folder with a tokenizer; of two
    classes, they are those of `training_runs`."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    write_tokenizer(folder)
    vocab_size = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=positions,
        num_labels=num_labels,
        **({"id2label": {0: "bad", 1: "good"}} if num_labels == 2 else {}),
    )
    torch.manual_seed(seed)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def write_tiny_masked_lm(folder: Path, *, seed: int = 0) -> Path:
    """A random two-block BERT that predicts masked words of the tiny tokenizer's vocabulary."""
    import torch
    from transformers import BertForMaskedLM

    write_tokenizer(folder)
    size = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertForMaskedLM(tiny_config("bert", vocab_size=size, pad_token_id=0, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():  # at its initial weights every place looks alike
            parameter.mul_(8 if parameter.ndim > 1 else 1)
    model.save_pretrained(folder)
    return folder


FAMILIES = (
    *("bert", "roberta", "xlm-roberta", "distilbert", "electra", "electra_narrow", "mpnet"),
    "modernbert",
    *("bart", "t5", "t5_gated", "gpt2", "llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3"),
)
"""Every kind of architecture the anatomy knows; T5 comes with two kinds of feed-forward, ELECTRA
also with embeddings narrower than its hidden states."""
LINEARS_ONLY = ("deberta-v2",)
"""Families of whose attention only the maps are known."""
LLAMA_LIKE = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3")
"""Decoders with gated feed-forwards and RMS norms, whose config says the size of a head."""
GATED = ("t5_gated", "modernbert", *LLAMA_LIKE)
WITHOUT_SHIFT = ("t5", "t5_gated", "modernbert", *LLAMA_LIKE)
"""No bias in norms: nothing there can take a shift."""
VOCABULARY = 60
EOS = 2


def tiny_config(family: str, *, blocks: int = 2, **changes: Any) -> PretrainedConfig:
    """The config of a tiny model: hidden 32, 4 heads, feed-forward 48, 40 positions, 3 labels."""
    import transformers as hf

    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": EOS, "vocab_size": VOCABULARY}
    heads = {"hidden_size": 32, "num_hidden_layers": blocks, "num_attention_heads": 4}
    encoder = {**heads, "intermediate_size": 48, "max_position_embeddings": 40}
    llama = {**encoder, "num_key_value_heads": 2}
    kinds = ["full_attention" if i % 2 else "sliding_attention" for i in range(blocks)]
    local = {"layer_types": kinds, "sliding_window": 4, "query_pre_attn_scalar": 16}
    gemma = {**llama, "head_dim": 8, **local}
    bart = {
        **{f"{stack}_layers": blocks for stack in ("encoder", "decoder")},
        **{f"{stack}_ffn_dim": 48 for stack in ("encoder", "decoder")},
        **{f"{stack}_attention_heads": 4 for stack in ("encoder", "decoder")},
        **{"d_model": 32, "max_position_embeddings": 40, "forced_eos_token_id": None},
    }
    t5 = {"d_model": 32, "d_kv": 6, "d_ff": 48, "num_heads": 4, "num_layers": blocks}
    shift = {"decoder_start_token_id": 1}
    rows: dict[str, tuple[type[Any], dict[str, Any]]] = {
        "bert": (hf.BertConfig, encoder),
        "roberta": (hf.RobertaConfig, {**encoder, "type_vocab_size": 1}),
        "xlm-roberta": (hf.XLMRobertaConfig, {**encoder, "type_vocab_size": 1}),
        "distilbert": (
            hf.DistilBertConfig,
            {
                **{"dim": 32, "n_layers": blocks, "n_heads": 4, "hidden_dim": 48},
                "max_position_embeddings": 40,
            },
        ),
        "electra": (hf.ElectraConfig, {**encoder, "embedding_size": 32}),
        "electra_narrow": (hf.ElectraConfig, {**encoder, "embedding_size": 24}),
        "mpnet": (hf.MPNetConfig, encoder),
        "modernbert": (
            hf.ModernBertConfig,
            {**encoder, "local_attention": 4, "cls_token_id": 0, "sep_token_id": 2},
        ),
        "deberta-v2": (
            hf.DebertaV2Config,
            {
                **{**encoder, "type_vocab_size": 0, "position_biased_input": False},
                **{"relative_attention": True, "pos_att_type": "p2c|c2p", "share_att_key": True},
                **{"position_buckets": 8, "norm_rel_ebd": "layer_norm"},
            },
        ),
        "bart": (hf.BartConfig, {**bart, **shift}),
        "t5": (hf.T5Config, {**t5, **shift, "feed_forward_proj": "relu"}),
        "t5_gated": (hf.T5Config, {**t5, **shift, "feed_forward_proj": "gated-gelu"}),
        "gpt2": (hf.GPT2Config, {"n_embd": 32, "n_layer": blocks, "n_head": 4, "n_positions": 40}),
        "llama": (hf.LlamaConfig, llama),
        "qwen2": (hf.Qwen2Config, llama),
        "qwen3": (hf.Qwen3Config, {**llama, "head_dim": 8}),
        "gemma": (hf.GemmaConfig, {**llama, "head_dim": 8}),
        "gemma2": (hf.Gemma2Config, {**gemma, "attn_logit_softcapping": 2.0}),
        "gemma3": (hf.Gemma3TextConfig, gemma),
    }
    config_class, fields = rows[family]
    if changes.get("num_labels") == 2:
        changes = {"id2label": {0: "bad", 1: "good"}, **changes}  # the classes of training_runs
    if family == "gpt2":
        fields = {**fields, "n_inner": 48}
    return config_class(**{**ids, **fields, "num_labels": 3, **changes})


def tiny_model(
    family: str,
    *,
    blocks: int = 2,
    seed: int = 0,
    attention: str = "eager",
    bare: bool = False,
    head: str = "SequenceClassification",
    **changes: Any,
) -> PreTrainedModel:
    """A random sequence classifier (or the bare model, or one with another of transformers' heads)
    of any family, in eval mode.

    Norms, biases and T5's position tables are random too: at their initial ones and zeros a wrong
    view would go unnoticed.
    """
    import torch
    import transformers

    from attar.models.load import buildable_attention, prepare_
    from attar.models.structure.chains import variant_class

    config = tiny_config(family, blocks=blocks, **changes)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        builder: Any = getattr(transformers, "AutoModel" if bare else f"AutoModelFor{head}")
        model_class = builder._model_mapping[type(config)]
        built_with = buildable_attention(model_class, attention)
        if getattr(config, "attar_ffn", None) is not None:
            model_class = variant_class(model_class)
        model = model_class._from_config(config, attn_implementation=built_with)
    prepare_(model, attention)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * (0.3 if parameter.ndim == 1 else 0.15))
    return model.eval()


def tiny_language_model(family: str, *, seed: int = 0, **changes: Any) -> Any:
    """A random model of any family with a language head, in eval mode."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config: Any = tiny_config(family, **changes)
    builder = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return builder.from_config(config).eval()


def tiny_batch(*, batch: int = 3, tokens: int = 9, seed: int = 0) -> dict[str, Tensor]:
    """Random ids that end in EOS, the first row full, the others right-padded."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (batch, tokens), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(batch):
        end = tokens - row
        ids[row, end - 1], ids[row, end:], mask[row, end:] = EOS, 1, 0
    return {"input_ids": ids, "attention_mask": mask}


def saved_bytes(model: Any, tokens: int) -> int:
    """What autograd keeps of one text for the backward pass, weights left out."""
    import torch

    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, tuple[int, Any]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    ids = torch.full((1, tokens), 5)
    fed = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.train()(input_ids=ids, **fed)
    return sum(size for size, _ in found.values())
