#!/usr/bin/env bash
# The whole experiment on the bundled demo, on a bare machine: minutes on two CPU cores, nothing to fetch but packages.
# A second call does no work.
set -euo pipefail
if [[ $# -gt 0 ]]; then
  echo "error: $*: quickstart.sh takes no arguments and runs the whole demo; options go to train_teacher_model.sh, train_student_model.sh and weak_to_strong.sh" >&2
  exit 2
fi
source "$(dirname "$0")/src/shell.sh"
ensure_venv
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"        # small models; with a busy core, two threads take 30 times as long

"${python}" data/demo.py                              # raw pairs, generated from a seed
"${python}" data/preprocess.py --experiment demo      # train_1, train_2, val, test
./train_teacher_model.sh demo                         # teachers, human labels of train_1
./train_student_model.sh demo                         # ceilings, human labels of train_2
./weak_to_strong.sh demo                              # students, weak labels of train_2
"${python}" eval.py --model demo                      # accuracy, PGR, figures, report
