#!/bin/bash
# One sweep over several hosts: sbatch scripts/slurm_hosts.sh
# Processes find each other through Slurm; the directory must be on a shared file system.
#SBATCH --job-name=sweep --nodes=4 --ntasks-per-node=1 --time=08:00:00 --requeue
#SBATCH --cpus-per-task=16 --mem=64G --signal=TERM@120
# For GPUs: --gpus-per-node=8 --ntasks-per-node=8 --cpus-per-task=8
set -u
run=runs/sac-sweep
if [ -e "$run/sweep.json" ]; then
    exec srun purejaxrl-sac resume "$run" --quiet
fi
exec srun purejaxrl-sac sweep sac --env Pendulum-v1 --seeds 16 --out "$run" --quiet \
    --range learning-rate=1e-4:1e-2 tau=0.001:0.05 --points 256
