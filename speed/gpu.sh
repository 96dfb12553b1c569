#!/usr/bin/env bash
# Asks a GPU box all at once, in about 20 minutes: do attention's back ends and DDP, ZeRO-2 and ZeRO-3 give the
# same results, how fast is training beside TRL, is memory what the formula says. One table, with the device's
# name, in speed/results/gpu_DEVICE.md: worth sending in. Nothing is downloaded.
#
#   speed/gpu.sh                     # all GPUs; with one, without what needs several
#   speed/gpu.sh --cpu-rehearsal     # the same on a CPU with tiny shapes, a minute: does the script run?
#   OUT=FILE speed/gpu.sh            # where the table is written
set -euo pipefail
source "$(dirname "$0")/../src/shell.sh"

shape=llama_3_2_1b rehearsal=() processes=0
case "${1:-}" in
  --cpu-rehearsal)
    shape=small rehearsal=(--rehearsal) processes=2
    export CUDA_VISIBLE_DEVICES='' HIP_VISIBLE_DEVICES='' DS_ACCELERATOR=cpu OMP_NUM_THREADS=1
    out="${OUT:-speed/results/gpu_rehearsal.md}" ;;
  "")
    processes="$("${python}" -m src.common.gpus)"
    if [[ "${processes}" == 0 ]]; then
      echo "error: no GPU here: run it on a machine that has one, or try it with --cpu-rehearsal" >&2
      exit 2
    fi
    name="$("${python}" -c 'import torch; print(torch.cuda.get_device_name().replace(" ", "_").replace("/", "_"))')"
    out="${OUT:-speed/results/gpu_${name}.md}" ;;
  --help | -h) sed -n '2,/^set /s/^# \{0,1\}//p' speed/gpu.sh; exit 0 ;;
  *) echo "error: $1: expected --cpu-rehearsal or nothing; see speed/gpu.sh --help" >&2; exit 2 ;;
esac

launches="$(mktemp -d)"
trap 'rm -rf "${launches}"' EXIT
given=()
if ((processes > 1)); then
  given=(--launches "${launches}")
  for hardware in multi_gpu zero2 zero3; do
    "${python}" -m accelerate.commands.launch --config_file "configs/hardware/${hardware}.yaml" \
      --num_processes "${processes}" --main_process_port 0 -m speed.gpu.losses --shape "${shape}" \
      --out "${launches}/${hardware}.json" || echo "${hardware}: FAILED, the rest goes on" >&2
  done
  # The rest is for one GPU: a process that sees several would spread its batches over them.
  export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES-0}"
  export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES%%,*}"
fi
"${python}" -m speed.gpu.day --out "${out}" ${given[@]+"${given[@]}"} ${rehearsal[@]+"${rehearsal[@]}"}
