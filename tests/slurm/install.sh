#!/usr/bin/env bash
# What the tests marked `slurm` need, on Debian or Ubuntu: the daemons of Slurm and munge. They start
# a cluster of their own, of two nodes on this machine, in a temporary folder; nothing is enabled.
#
#     sudo tests/slurm/install.sh && ./test.sh -m slurm
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet
apt-get install --quiet --yes --no-install-recommends slurmctld slurmd slurm-client munge
