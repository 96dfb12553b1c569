#!/usr/bin/env bash
# transformers makes a tokenizer and a model of a GGUF file without a word where it is not the file's own:
# a way of splitting text that it does not know becomes GPT-2's, Gemma's long runs of spaces are merged in
# another order, and Llama 3's scaled positions (the tensor rope_freqs) are dropped. It refuses to save.
#
#   findings/gguf_by_transformers.sh     # a few minutes for the downloads; fails if it changed
#
# Seen with torch 2.13.0, transformers 5.24.0, accelerate 1.15.0, gguf 0.19.0 on Python 3.11, CPU:
#
#   pre smollm,       two spaces, 1:   Ġ Ġ 1
#   pre no-such-name, two spaces, 1:   Ġ Ġ 1
#   pre gpt-2,        two spaces, 1:   Ġ Ġ 1
#   digits alone, as in SmolLM2's own: ĠĠ 1
#   gemma3, a run of 40 spaces:        16 24
#   with rope_freqs, rope type:        default
#   save_pretrained:                   The model is quantized with gguf
#
# SmolLM2's published tokenizer.json splits digits off first, so that white space before a number stays
# whole; Gemma 3's merges the longest run first, and 40 spaces are 31 and 9. Either way the text comes
# back, so a round trip does not tell. Nothing of this repository runs here; it sets the split and the order
# itself, and refuses names and tensors that it does not know (model/base/gguf_tokenizer.py, gguf_file.py).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "${folder}"' EXIT
python3 -m venv "${folder}/venv"
"${folder}/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 transformers==5.24.0 accelerate==1.15.0 gguf==0.19.0
cd "${folder}"
cat > read.py <<'PYTHON'
"""Tiny GGUF files as llama.cpp's converter writes them, and what transformers makes of them."""
import os
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")
import gguf  # noqa: E402
import numpy as np  # noqa: E402
from tokenizers import pre_tokenizers  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, logging  # noqa: E402
from transformers.convert_slow_tokenizer import bytes_to_unicode  # noqa: E402

logging.set_verbosity_error()
logging.disable_progress_bar()
CONTROL, PLAIN, USER, BYTE = 3, 1, 4, 6


def tokenizer(architecture, model, pre, tokens, merges=()):
    writer = gguf.GGUFWriter(f"{pre}.gguf", architecture)
    for key, value in {"context_length": 64, "embedding_length": 32, "block_count": 1,
                       "feed_forward_length": 32, "attention.head_count": 1}.items():
        writer.add_uint32(f"{architecture}.{key}", value)
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([token for token, _ in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_token_scores([-float(i) for i in range(len(tokens))])
    if merges:
        writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_unk_token_id(0)
    write(writer)
    return AutoTokenizer.from_pretrained(".", gguf_file=f"{pre}.gguf")


def write(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def pieces(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])


merges = ["Ġ Ġ", "Ċ Ċ"]
letters = [("<s>", CONTROL), *((each, PLAIN) for each in bytes_to_unicode().values()),
           ("ĠĠ", PLAIN), ("ĊĊ", PLAIN)]
for pre in ("smollm", "no-such-name", "gpt-2"):
    made = tokenizer("llama", "gpt2", pre, letters, merges)
    print(f"pre {pre + ',':13} two spaces, 1:  ", *pieces(made, "  1"))

made.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
    pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
print("digits alone, as in SmolLM2's own:", *pieces(made, "  1"))

runs = [(" " * n, USER) for n in range(2, 32)]
raw = [(f"<0x{byte:02X}>", BYTE) for byte in range(256)]
gemma = [("<s>", CONTROL), *runs, *raw, ("▁", PLAIN), ("a", PLAIN)]
made = tokenizer("gemma3", "llama", "default", gemma)
print("gemma3, a run of 40 spaces:       ", *map(len, pieces(made, " " * 40)))

writer = gguf.GGUFWriter("model.gguf", "llama")
for key, value in {"context_length": 64, "embedding_length": 32, "block_count": 1,
                   "feed_forward_length": 32, "attention.head_count": 1, "vocab_size": 8,
                   "rope.dimension_count": 32}.items():
    writer.add_uint32(f"llama.{key}", value)
writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
writer.add_float32("llama.rope.freq_base", 5e5)
values = np.random.default_rng(0)
shapes = {"token_embd": (8, 32), "output_norm": (32,), "blk.0.attn_norm": (32,),
          "blk.0.ffn_norm": (32,)}
shapes |= {f"blk.0.{name}": (32, 32) for name in (
    "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
for name, shape in shapes.items():
    writer.add_tensor(f"{name}.weight", values.normal(size=shape).astype(np.float32))
writer.add_tensor("rope_freqs.weight", np.full(16, 8, np.float32))  # as Llama 3.1 and 3.2 have it
write(writer)
model = AutoModelForCausalLM.from_pretrained(".", gguf_file="model.gguf")
print("with rope_freqs, rope type:       ", model.config.rope_parameters["rope_type"])
try:
    model.save_pretrained("out")
    print("save_pretrained:                   saved")
except ValueError as error:
    print("save_pretrained:                  ", str(error).split(" and ")[0])
PYTHON
venv/bin/python read.py 2> errors > seen || { cat errors; exit 1; }
cat seen
cat > expected <<'TEXT'
pre smollm,       two spaces, 1:   Ġ Ġ 1
pre no-such-name, two spaces, 1:   Ġ Ġ 1
pre gpt-2,        two spaces, 1:   Ġ Ġ 1
digits alone, as in SmolLM2's own: ĠĠ 1
gemma3, a run of 40 spaces:        16 24
with rope_freqs, rope type:        default
save_pretrained:                   The model is quantized with gguf
TEXT
diff expected seen || { echo "changed: see the lines above (< seen before, > now)"; exit 1; }
echo "as seen before"
