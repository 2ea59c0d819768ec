#!/bin/bash
# Independent runs, one per task of a job array: sbatch scripts/slurm_array.sh
# A task that is stopped by its time limit resumes from its last checkpoint when requeued.
#SBATCH --job-name=sac --array=0-3 --time=04:00:00 --requeue
#SBATCH --cpus-per-task=8 --mem=16G --signal=B:TERM@120
# For one GPU each: --gres=gpu:1
set -u
envs=(Pendulum-v1 MountainCarContinuous-v0 Reacher-misc Swimmer-misc)
env=${envs[$SLURM_ARRAY_TASK_ID]}
run=runs/sac-$env
[ -e "$run/summary.json" ] && exit 0
if [ -e "$run/config.json" ]; then
    exec purejaxrl-sac resume "$run" --quiet
fi
exec purejaxrl-sac train sac --env "$env" --seeds 32 --seed 0 --out "$run" --quiet
