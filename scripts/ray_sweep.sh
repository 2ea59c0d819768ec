#!/bin/bash
# A sweep on a running Ray cluster, one GPU per batch: scripts/ray_sweep.sh DIRECTORY
# DIRECTORY is shared by all hosts. A batch whose worker fails is resumed by another one.
set -eu
options=(--quiet --lanes 512 --engine ray --ray-address auto --gpus "${GPUS:-1}" --cpus "${CPUS:-4}")
if [ -e "$1/sweep.json" ]; then
    exec purejaxrl-sac resume "$1" "${options[@]}"
fi
exec purejaxrl-sac sweep sac --env Pendulum-v1 --seeds 16 --out "$1" "${options[@]}" \
    --range learning-rate=1e-4:1e-2 tau=0.001:0.05 --points 256
