#!/usr/bin/env bash
# Stage 3: teachers label train_2 and val; students train on those weak labels alone.
#
# usage: ./weak_to_strong.sh [EXPERIMENT] [--dry-run] [--seeds 0 1 2] [--runs_dir DIR] [--data_dir DIR]
#
# EXPERIMENT is a file of configs/experiments or the path of a YAML file, llama_3_2_1b if left out;
# demo needs no download. --dry-run lists the runs with their tokens, memory and time.
# HARDWARE=auto|cpu|gpu|multi_gpu|zero2|zero3 picks configs/hardware; NPROC the number of processes;
# WORKERS, on a CPU, of runs at a time.
# LAUNCH=slurm, or another file of configs/launch, submits the runs to a cluster, with what they need;
# `python -m src.runs status EXPERIMENT` tells where they stand.
set -euo pipefail
source "$(dirname "$0")/src/shell.sh"
launch_stage students "$@"
