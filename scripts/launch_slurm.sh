#!/usr/bin/env bash
# Pretraining on several machines under Slurm, for as long as it takes: the job saves itself before its time is over,
# queues again and goes on. An example: fit the numbers, and what sets up Python, to your cluster.
#   sbatch scripts/launch_slurm.sh recipes/phase1_128.yaml [KEY=VALUE ...]
# The folders of the corpus and of the run (`corpus`, `output`) must lie on a disk that all machines share.
#SBATCH --job-name=sqzb
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=12:00:00
# To this script (B), five minutes before the end.
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

: "${1:?give a recipe: sbatch scripts/launch_slurm.sh recipes/phase1_128.yaml}"
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p) # head would break the pipe off

# Slurm's signal reaches this script alone; scancel passes it to torchrun on each machine, and torchrun to its processes.
# These end the step and save it; torchrun gives them so many seconds, 30 if it is not told.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240
stopped=
trap 'stopped=yes; scancel --signal=TERM "$SLURM_JOB_ID"' TERM

srun --kill-on-bad-exit=1 torchrun --nnodes "$SLURM_NNODES" --nproc-per-node "${SLURM_GPUS_ON_NODE:-gpu}" \
    --rdzv-backend c10d --rdzv-endpoint "$first:29500" --rdzv-id "$SLURM_JOB_ID" \
    -m sqzb pretrain "$@" --resume auto &
step=$!
code=0
wait "$step" || code=$?
if [[ -n $stopped ]]; then # the signal has ended the waiting, not yet the step
    wait "$step" || true
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
