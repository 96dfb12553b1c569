#!/usr/bin/env bash
# The tests, on a bare machine: .venv, requirements, pytest. Options go to pytest: ./test.sh -k pgr
set -euo pipefail
source "$(dirname "$0")/src/shell.sh"
ensure_venv
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" DS_ACCELERATOR="${DS_ACCELERATOR:-cpu}"
"${python}" -m ruff check .
exec "${python}" -m pytest "$@"
