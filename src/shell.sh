# Shared by the scripts at the top: the virtual environment, the hardware, one launch of src.train.
# Sourced, never run.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false
export PYTHONWARNINGS="${PYTHONWARNINGS:-ignore::FutureWarning}"  # gloo prints one per collective
export PYTORCH_ALLOC_CONF="${PYTORCH_ALLOC_CONF:-expandable_segments:True}"  # rows of many lengths
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"  # big pages of memory: speed/big_pages.py
export PYTHONPATH="${PWD}${PYTHONPATH:+:${PYTHONPATH}}"

if [[ -x .venv/bin/python ]]; then python=.venv/bin/python; else python=python3; fi

require_python() {
  "${python}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "error: $("${python}" --version) found, Python 3.11 or newer is needed" >&2; exit 2; }
}

# A .venv with requirements.txt in it, made once and again when that file changes.
ensure_venv() {
  local wanted
  wanted="$(cksum < requirements.txt)"
  if [[ ! -f .venv/.requirements || "$(cat .venv/.requirements)" != "${wanted}" ]]; then
    echo "installing requirements.txt into .venv (a few minutes, once)"
    python=python3
    require_python
    python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
    echo "${wanted}" > .venv/.requirements
  fi
  python=.venv/bin/python
}

# stopped CODE: what a signal comes to. Trainers end because their script does, also where it was
# killed without a word, or the script that called it was: each looks whether it is still there.
export TOP_SCRIPT="${TOP_SCRIPT:-$$}"
stopped() {
  trap '' HUP INT TERM
  echo "stopped: run the same command again to go on from here" >&2
  exit "$1"
}

# launch_stage STAGE [EXPERIMENT] [options of src.train]
launch_stage() {
  local stage="$1" experiment=llama_3_2_1b hardware="${HARDWARE:-auto}" gpus
  shift
  if [[ $# -gt 0 && "$1" != -* ]]; then experiment="$1"; shift; fi
  local words=(-m src.train --experiment "${experiment}" --stage "${stage}" "$@")

  case " $* " in
    *" --help "* | *" -h "*)
      sed -n '2,/^set /s/^# \{0,1\}//p' "$(basename "$0")"  # the script's own head
      exit 0 ;;
  esac
  "${python}" -m src.training.command_line "${words[@]:2}" || exit "$?"  # before what takes seconds
  if [[ "${LAUNCH:-local}" != local ]]; then
    "${python}" -m src.runs submit --launch "${LAUNCH}" "${words[@]:2}"
    return
  fi
  case " $* " in
    *" --dry-run "*) exec "${python}" "${words[@]}" ;;
  esac
  gpus=0
  if command -v nvidia-smi > /dev/null || command -v rocm-smi > /dev/null; then
    if [[ "${hardware}" == cpu ]]; then
      export CUDA_VISIBLE_DEVICES='' HIP_VISIBLE_DEVICES=''  # or some would be used all the same
    else
      gpus="$("${python}" -m src.common.gpus)" || exit "$?"
    fi
  fi
  if [[ "${hardware}" == auto ]]; then
    hardware=cpu
    if [[ "${gpus}" != 0 && "${stage}" == policies ]]; then
      hardware=gpu  # where they train in one process
    elif [[ "${gpus}" != 0 ]]; then  # the first kind that the stage's models fit
      hardware="$("${python}" -m src.training.choose_hardware "${words[@]:2}")" || exit "$?"
      hardware="${hardware##*$'\n'}"  # below what libraries print on standard output
    fi
  fi
  if [[ ! -f "configs/hardware/${hardware}.yaml" ]]; then
    echo "error: HARDWARE=${hardware}: expected auto, cpu, gpu, multi_gpu, zero2 or zero3" >&2
    exit 2
  fi
  if [[ "${hardware}" == gpu && "${gpus}" -gt 1 ]]; then
    # One process that sees several would spread each batch over them, without autocast.
    export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES:-0}"
    export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES%%,*}"
  fi
  local processes=1 workers=1
  case "${hardware}" in multi_gpu | zero2 | zero3) processes="${NPROC:-${gpus}}" ;; esac
  if [[ ! "${processes}" =~ ^[1-9][0-9]*$ ]]; then
    echo "error: HARDWARE=${hardware}, NPROC=${processes}: expected the number of GPUs, or NPROC=2 to try it on the CPU" >&2
    exit 2
  fi
  if [[ "${gpus}" == 0 ]]; then
    # Small models on one thread each, several at once: two threads on one small model are slower
    # than one, and far slower where something else wants a core.
    export DS_ACCELERATOR=cpu OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
    if [[ "${hardware}" == cpu ]]; then
      local cores
      cores="$(getconf _NPROCESSORS_ONLN)"
      workers="${WORKERS:-$((cores < 99 ? cores : 99))}"
    fi
  fi
  if [[ ! "${workers}" =~ ^[1-9][0-9]?$ ]]; then
    echo "error: WORKERS=${workers}: expected how many runs at a time, 1 to 99" >&2
    exit 2
  fi
  if [[ ! "${MASTER_PORT:-0}" =~ ^[0-9]{1,5}$ ]] || ((10#${MASTER_PORT:-0} > 65535)); then
    echo "error: MASTER_PORT=${MASTER_PORT}: expected a port, or nothing for a free one" >&2
    exit 2
  fi
  echo "${stage} of ${experiment}: HARDWARE=${hardware}, ${processes} process(es), ${workers} run(s) at a time"

  # A job on several nodes (MACHINES) runs its script on each: SLURM_* say which this is, and which is
  # the first.
  local machines="${MACHINES:-1}" meet=()
  if ((machines > 1)); then
    meet=(--num_machines "${machines}" --machine_rank "${SLURM_NODEID}" --rdzv_backend static
          --main_process_ip "${SLURM_LAUNCH_NODE_IPADDR}")
    if [[ "${hardware}" == zero* ]]; then meet+=(--deepspeed_multinode_launcher standard); fi
    export MASTER_PORT="${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}"
  fi
  local statuses worker code=0 launches=()
  statuses="$(mktemp -d)"
  # A launcher that is asked to end answers with a traceback, and leaves its own folder; of one that is
  # killed, a shell that is slow to end says so; and trainers that save may still write there.
  trap 'exec 2> /dev/null; kill -KILL $(jobs -p) 2>/dev/null || true; rm -rf "'"${statuses}"'" || true' EXIT
  trap 'stopped 129' HUP
  trap 'stopped 130' INT
  trap 'stopped 143' TERM
  for ((worker = 0; worker < workers; worker++)); do
    TMPDIR="${statuses}" STATUS_FILE="${statuses}/${worker}" "${python}" -m accelerate.commands.launch \
      --config_file "configs/hardware/${hardware}.yaml" --num_processes "$((processes * machines))" \
      "${meet[@]+"${meet[@]}"}" --main_process_port "${MASTER_PORT:-0}" "${words[@]}" --worker "${worker}/${workers}" &
    launches+=("$!")
  done
  for worker in "${!launches[@]}"; do
    local told=1  # killed, or broken before it could say why
    wait "${launches[worker]}" || true
    if [[ -s "${statuses}/${worker}" ]]; then told="$(cat "${statuses}/${worker}")"; fi
    if ((told > code)); then code="${told}"; fi
  done
  return "${code}"
}
