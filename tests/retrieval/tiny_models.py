"""Models of a few kilobytes in the layout in which the hub's are kept: random weights, real code paths."""

from __future__ import annotations

import hashlib
import json
import string
from pathlib import Path
from typing import Any

HIDDEN = 32


def sentence_model(folder: Path, *, seed: int = 7) -> str:
    """A sentence-transformers model of 32 dimensions, mean pooling; returns its weights' SHA-256."""
    from transformers import BertModel

    found = _bert(BertModel, folder, seed)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 64}', encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    return found


def cross_encoder(folder: Path, *, seed: int = 7, labels: int = 1) -> str:
    """A sequence classifier with so many numbers for a pair; returns its weights' SHA-256."""
    from transformers import BertForSequenceClassification

    return _bert(BertForSequenceClassification, folder, seed, num_labels=labels)


def _bert(kind: Any, folder: Path, seed: int, **more: Any) -> str:
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, PreTrainedTokenizerFast

    letters = string.ascii_lowercase + string.digits
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters)]
    known = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(known, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = ("[SEP]", known["[SEP]"]), ("[CLS]", known["[CLS]"])
    tokenizer.post_processor = processors.BertProcessing(*ends)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    wrapped: Any = PreTrainedTokenizerFast  # without types of its own
    wrapped(tokenizer_object=tokenizer, model_max_length=64, **special).save_pretrained(str(folder))
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * HIDDEN,
        max_position_embeddings=64,
        **more,
    )
    kind(config).save_pretrained(str(folder))
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
