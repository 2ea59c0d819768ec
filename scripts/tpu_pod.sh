#!/bin/bash
# Run the same command on every host of a TPU pod slice: scripts/tpu_pod.sh NAME ZONE DIRECTORY
# Hosts find each other; DIRECTORY is a mounted bucket or disk shared by all of them.
set -eu
name=$1 zone=$2 directory=$3
${LAUNCH:-gcloud} compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all --command "
    cd purejaxrl_sac && .venv/bin/purejaxrl-sac train pqn --env Breakout-MinAtar \
        --seeds 256 --out $directory/pqn-breakout --quiet"
