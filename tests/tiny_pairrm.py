"""A PairRM of random weights in a folder, as llm-blender/PairRM-hf is laid out."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import DebertaV2Config, DebertaV2Model, PreTrainedTokenizerFast

from model.pair_judge import MARKS

WORDS = "[PAD] [UNK] [CLS] [SEP] river stone lamp seven bridge quiet orange window".split()
VOCABULARY = {word: i for i, word in enumerate([*WORDS, *MARKS.values()])}


def save_pairrm(path: Path) -> Path:
    """A tiny DeBERTa-v3 and its head."""
    words = Tokenizer(WordLevel(VOCABULARY, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[
        ("[CLS]", VOCABULARY["[CLS]"]), ("[SEP]", VOCABULARY["[SEP]"])])
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]",
        sep_token="[SEP]", additional_special_tokens=[*MARKS.values()]).save_pretrained(path)
    config = DebertaV2Config(
        vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, relative_attention=True, pos_att_type=["p2c", "c2p"],
        position_buckets=8, norm_rel_ebd="layer_norm", share_att_key=True, type_vocab_size=0,
        position_biased_input=False, initializer_range=0.3, n_tasks=1, drop_out=0.05,
        sep_token_id=3, cand_prefix_id=1,
        **{key: VOCABULARY[token] for key, token in MARKS.items()})
    torch.manual_seed(0)
    config.save_pretrained(path)
    head = {f"head_layer.{place}.{name}": torch.randn(shape) for place, name, shape in (
        (1, "weight", (16, 32)), (1, "bias", (16,)), (4, "weight", (1, 16)), (4, "bias", (1,)))}
    save_file({**{f"pretrained_model.{name}": value for name, value in
                  DebertaV2Model(config).state_dict().items()}, **head}, path / "model.safetensors")
    return path
