#!/bin/bash
# A sweep over a Ray cluster that is running, a GPU for each batch: scripts/ray_sweep.sh DIRECTORY
# DIRECTORY is shared by its hosts. A batch whose worker is lost goes on in another one.
set -eu
how=(--quiet --lanes 512 --engine ray --ray-address auto --gpus "${GPUS:-1}" --cpus "${CPUS:-4}")
if [ -e "$1/sweep.json" ]; then
    exec purejaxrl-sac resume "$1" "${how[@]}"
fi
exec purejaxrl-sac sweep sac --env Pendulum-v1 --seeds 16 --out "$1" "${how[@]}" \
    --range learning-rate=1e-4:1e-2 tau=0.001:0.05 --points 256
