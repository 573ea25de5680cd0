#!/bin/bash
# One training at a time, each on all GPUs of one node: `sbatch examples/cluster/slurm.sh`, from a shared folder.
# A preempted or killed job is queued again and goes on from its checkpoint. For many small runs, submit none of this and
# type `mmpt-bench run … --workers slurm`.
#SBATCH --job-name=mmpt-bench
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=mmpt-bench-%j.log
set -euo pipefail

gpus="${SLURM_GPUS_ON_NODE:-8}"

srun torchrun --standalone --nproc-per-node "$gpus" --max-restarts 2 -m mmpt_bench \
    run --method mmpt,lora --tasks cifar10,mnist --seeds 0-5 --backbone llava-hf/llava-1.5-7b-hf \
    --dtype bfloat16 --train-data task:cifar10 --batch-size 128 --parallel ddp --out mmpt-results
