#!/bin/sh
# Trains the nano world from nothing into the folder $1 (default: runs) and measures it; goes on where it was stopped.
set -e
here=$(dirname "$0")
runs=${1:-runs}
workers=${WORKERS:-2}
python=${PYTHON:-python}
# freed memory is kept for the next step: a third of the time of a step of the VAE goes into page faults otherwise
export OMP_NUM_THREADS=1 MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=8589934592
"$python" "$here/train_judge.py" --out "$runs/judge"
"$python" "$here/train_vae.py" --out "$runs/vae" --workers "$workers"
"$python" "$here/encode.py" --vae "$runs/vae" --out "$runs/latents" --workers "$workers"
"$python" "$here/train_dit.py" --latents "$runs/latents" --out "$runs/dit" --workers "$workers"
"$python" "$here/package.py" --vae "$runs/vae" --dit "$runs/dit" --out "$runs/nano"
"$python" "$here/evaluate.py" --bundle "$runs/nano" --judge "$runs/judge" --strips "$runs/strips"
