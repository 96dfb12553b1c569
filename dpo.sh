#!/usr/bin/env bash
# Stage 5: language models are aligned to preferences of people, of a teacher, and of the student
# that learned from it; a reward model that labelled for none of them is the judge.
#
# usage: ./dpo.sh [EXPERIMENT] [--dry-run] [--seeds 0 1 2] [--runs_dir DIR] [--data_dir DIR]
#
# EXPERIMENT is a file of configs/experiments with a block `policies`, or the path of such a YAML
# file; demo stands for demo_dpo, smollm2 for smollm2_dpo; demo_dpo if left out, which needs no
# download. Reward models that it needs are trained first where they are not. Tables, figures and a
# page go to results/EXPERIMENT/policy/. A second call does no work.
# HARDWARE=auto|cpu|gpu picks configs/hardware: a policy trains in one process, so NPROC is 1. WORKERS,
# on a CPU, of runs at a time. LAUNCH, which submits the other stages to a cluster, is for them alone.
set -euo pipefail
source "$(dirname "$0")/src/shell.sh"
experiment=demo_dpo
if [[ $# -gt 0 && "$1" != -* ]]; then experiment="$1"; shift; fi
case "${experiment} $* " in
  *" --help "* | *" -h "* | *" --data_dir "*) ;;
  demo\ * | demo_dpo\ *)
    if [[ ! -d data/processed/demo ]]; then
      "${python}" data/demo.py
      "${python}" data/preprocess.py --experiment demo_dpo
    fi ;;
esac
launch_stage policies "${experiment}" "$@"
"${python}" eval.py --policies --model "${experiment}" "$@"
