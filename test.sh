#!/usr/bin/env bash
# The tests, on a bare machine: .venv, requirements, pytest. Options go to pytest: ./test.sh -k pgr
set -euo pipefail
source "$(dirname "$0")/src/shell.sh"
ensure_venv
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" DS_ACCELERATOR="${DS_ACCELERATOR:-cpu}"
"${python}" -m ruff check .
# All of them: two files at a time. Some of them: one at a time, so that they may have a GPU alone.
if [[ $# == 0 ]]; then set -- -n 2 --dist loadfile --no-loadscope-reorder; fi
exec "${python}" -m pytest "$@"
