#!/usr/bin/env bash
# Stage 3: teachers label train_2 and val; students train on those weak labels alone.
#
#   ./weak_to_strong.sh [EXPERIMENT] [--dry-run] [--seeds 0 1 2]
#
# EXPERIMENT is a file of configs/experiments, llama_3_2_1b if left out; demo needs no download.
# HARDWARE=auto|cpu|gpu|multi_gpu|zero2|zero3 picks configs/hardware; NPROC the number of processes.
set -euo pipefail
source "$(dirname "$0")/src/shell.sh"
launch_stage students "$@"
