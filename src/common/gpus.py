"""How many GPUs can be used, for the scripts; and why not, where some are listed that cannot.

    python -m src.common.gpus          # prints the number; 2 and one line where they cannot be used

With a driver that is too old for its CUDA, torch counts the GPUs and trains on the CPU.
"""

import subprocess

import torch

from src.common.errors import UserError, run_command


def usable_gpus() -> int:
    """The GPUs that torch can use.

    Raises:
        UserError: GPUs are listed, but a first tensor cannot be put on one.
    """
    listed = torch.cuda.device_count()
    if not listed:
        return 0
    try:
        if not torch.cuda.is_available():
            raise RuntimeError("torch finds no usable driver")
        torch.zeros(1, device="cuda")
    except RuntimeError as error:  # what CUDA raises
        raise UserError(
            f"{listed} GPUs are listed, but torch cannot use them ({_first_line(error)}): driver "
            f"{_driver()}, torch {torch.__version__} built for CUDA {torch.version.cuda}: install "
            "a driver for that CUDA or a torch for that driver, or set HARDWARE=cpu for the "
            "scripts and CUDA_VISIBLE_DEVICES= for other commands") from error
    return listed


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _driver() -> str:
    """The driver's version as nvidia-smi has it."""
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return (found.split() or ["unknown"])[0]


def main() -> None:
    print(usable_gpus())


if __name__ == "__main__":
    run_command(main)
