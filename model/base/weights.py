"""Reading checkpoints: which tensors a folder holds, some of them, and what identifies it.

Safetensors only. Knows nothing of layers or heads.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig
from transformers.integrations import deepspeed

from src.common.errors import UserError, reading
from src.common.pretrained import from_folder

WHOLE_FILE_BYTES = 1 << 30
EDGE_BYTES = 1 << 12


def read_config(folder: Path) -> PreTrainedConfig:
    """The folder's config; UserError where it has none that is readable.

    The Auto class and the check matter: a family's own class makes up a default model for a folder
    without config.json.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json, so not a Hugging Face checkpoint; "
                        "`python model/download.py --model NAME` fetches a base model")
    with reading(f"{folder}/config.json", "no model's config: fetch or train the model again"):
        config = from_folder(AutoConfig, folder)
    quantised = getattr(config, "quantization_config", None)
    if quantised is not None:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise UserError(f"{folder}/config.json: quantised weights ({method}), which are not read "
                        "here: name the model that they were made from, or save it dequantised")
    return config


def tensor_files(folder: Path) -> dict[str, Path]:
    """Tensor name -> the safetensors file that holds it, in the index's or the file's order.

    Raises:
        UserError: no safetensors, a shard missing, or a file cut short.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        with reading(index, "not an index of shards: fetch the model again"):
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            files = sorted({folder / shard for shard in shards.values()})
            if any(file.parent != folder for file in files):
                raise ValueError("a shard that lies elsewhere")
    else:
        files = [folder / "model.safetensors"]
    held = {name: file for file in files for name in _names_in(file)}
    absent = sorted(set(shards) - set(held)) if index.is_file() else []
    if absent:
        raise UserError(f"{index}: lists {absent[0]}, which no shard holds; fetch the model again")
    return held


def _names_in(file: Path) -> list[str]:
    if not file.is_file():
        old = sorted(path.name for path in file.parent.glob("*.bin"))
        hint = (f"found {old[0]}, but weights are read from safetensors only: convert it with "
                "`save_pretrained` of transformers" if old else
                "fetch or train the model again")
        raise UserError(f"{file}: no such file; {hint}")
    try:
        with safe_open(file, framework="pt") as tensors:
            return list(tensors.keys())
    except SafetensorError as error:
        raise UserError(f"{file}: not a whole safetensors file ({error}); fetch or train the "
                        "model again") from error


def read_tensors(files: dict[str, Path], names: dict[str, str], dtype: torch.dtype,
                 mapped: bool = False) -> dict[str, Tensor]:
    """Some of a checkpoint's tensors on CPU, renamed; the others are not read.

    Under ZeRO-3 the first rank alone reads, and shares out: on the others the tensors are of the
    device `meta`, shapes without values. Inside `whole_weights` every process reads.

    Args:
        files: from `tensor_files`.
        names: name in the file -> name in the result.
        mapped: leave them in the file, in its type, for who copies them to a device one by one:
            all processes of a machine see one copy in memory.
    Raises:
        UserError: NaN or an infinite number among them.
    """
    if not deepspeed.is_deepspeed_zero3_enabled():
        return _read_values(files, names, None if mapped else dtype)
    first, box = torch.distributed.get_rank() == 0, [None]
    read = {}
    try:
        read = (_read_values if first else _read_shapes)(files, names, dtype)
    except UserError as error:  # which the other ranks would wait for for ever
        box = [error]
    torch.distributed.broadcast_object_list(box, src=0)
    if box[0] is not None:
        raise box[0]
    return read


def _read_values(files: dict[str, Path], names: dict[str, str],
                 dtype: torch.dtype | None) -> dict[str, Tensor]:
    read = {}
    for file, name in _by_file(files, names):
        tensor = file.get_tensor(name)
        # a copy: where the file's map is not aligned, kernels round otherwise
        read[names[name]] = tensor if dtype is None else tensor.to(dtype, copy=True)
        _require_finite(read[names[name]], name, files[name])
    return read


def _read_shapes(files: dict[str, Path], names: dict[str, str],
                 dtype: torch.dtype) -> dict[str, Tensor]:
    return {names[name]: torch.empty(file.get_slice(name).get_shape(), dtype=dtype, device="meta")
            for file, name in _by_file(files, names)}


def _by_file(files: dict[str, Path], names: Iterable[str]) -> Iterator[tuple[Any, str]]:
    """(open file, name of a tensor in it), each file opened once."""
    for path in sorted({files[name] for name in names}):
        with safe_open(path, framework="pt") as file:
            yield from ((file, name) for name in names if files[name] == path)


def _require_finite(tensor: Tensor, name: str, file: Path) -> None:
    if tensor.numel() and not torch.isfinite(torch.stack(torch.aminmax(tensor))).all():
        raise UserError(f"{file}: {name} holds NaN or infinite numbers, so that no reward of this "
                        "model means anything: fetch the model again, or train it with a lower "
                        "learning_rate")


def base_fingerprint(folder: Path) -> str:
    """16 hex digits of a base model's config and weights: the same wherever the folder lies.

    A file above 1 GiB enters by its size, its safetensors header (names, shapes, offsets) and the
    first and last 4 KiB of each tensor instead of whole, which would take minutes.
    """
    return _fingerprint(folder, _edges_digest)


def weights_fingerprint(folder: Path) -> str:
    """The same from every byte of the weights: what is computed from them holds for these alone.

    Within one process a file is read again where its size or its time of change differs.
    """
    return _fingerprint(folder, _whole_digest)


def _fingerprint(folder: Path, digest_of: Callable[[Path], bytes]) -> str:
    if not (folder / "config.json").is_file():
        read_config(folder)
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for file in sorted(set(tensor_files(folder).values())):
        digest.update(digest_of(file))
    return digest.hexdigest()[:16]


def _whole_digest(file: Path) -> bytes:
    facts = file.stat()
    return _digest_of_version(file.resolve(), facts.st_size, facts.st_mtime_ns, facts.st_ino)


@functools.lru_cache(maxsize=1024)
def _digest_of_version(file: Path, *version: int) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _edges_digest(file: Path) -> bytes:
    size = file.stat().st_size
    if size <= WHOLE_FILE_BYTES:
        return _whole_digest(file)
    with file.open("rb") as stream:
        length = stream.read(8)
        header = stream.read(int.from_bytes(length, "little"))
        digest = hashlib.sha256(length + header + size.to_bytes(8, "little"))
        for name, tensor in json.loads(header).items():
            if name != "__metadata__":
                begin, end = (8 + len(header) + offset for offset in tensor["data_offsets"])
                for start in (begin, max(begin, end - EDGE_BYTES)):
                    stream.seek(start)
                    digest.update(stream.read(min(EDGE_BYTES, end - start)))
    return digest.digest()


@contextmanager
def whole_weights() -> Iterator[None]:
    """Inside, `from_pretrained` loads whole tensors into this process even under ZeRO-3, where it
    would otherwise partition them and wait for the other ranks."""
    reference = deepspeed._hf_deepspeed_config_weak_ref
    config = reference() if reference is not None else None
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if config is not None:
            deepspeed.set_hf_deepspeed_config(config)
