#!/bin/sh
# Trains both nano worlds from nothing into the folder $1 (default: runs) and measures them; goes on where it was
# stopped. WORKERS: processes of each training (2). SMOKE=1: a few steps of everything, to see that it runs.
set -e
here=$(dirname "$0")
runs=${1:-runs}
workers=${WORKERS:-2}
python=${PYTHON:-python}
if [ "${SMOKE:-0}" = 1 ]; then
  few="--steps 2" shards="--clips 1 --images 1" drives="--shards 1"
  looks="--pictures 2 --videos 2 --clips 2 --steps 2" rides="--clips 1 --drives 1 --seconds 3 --minutes 0.05"
fi
# freed memory is kept for the next step: a third of the time of a step of the VAE goes into page faults otherwise
export OMP_NUM_THREADS=1 MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=8589934592
run() { script=$1; shift; "$python" "$here/$script.py" "$@"; }

# the Cosmos nano
run train_judge --out "$runs/judge" $few
run train_vae --out "$runs/vae" --workers "$workers" $few
run encode --vae "$runs/vae" --out "$runs/latents" --workers "$workers" $shards
run train_dit --latents "$runs/latents" --out "$runs/dit" --workers "$workers" $few
run package --vae "$runs/vae" --dit "$runs/dit" --out "$runs/nano"
run evaluate --bundle "$runs/nano" --judge "$runs/judge" --strips "$runs/strips" $looks

# the Matrix nano, which has the same latents
run encode_drives --bundle "$runs/nano" --out "$runs/drives" --workers "$workers" $drives
for part in decoder encoder; do
  run train_matrix_vae --part $part --drives "$runs/drives" --out "$runs/$part" --workers "$workers" $few
done
run train_world --drives "$runs/drives" --out "$runs/teacher" --workers "$workers" $few
run distill_world --teacher "$runs/teacher" --drives "$runs/drives" --out "$runs/world" --workers "$workers" $few
run package_world --decoder "$runs/decoder" --encoder "$runs/encoder" --world "$runs/world" --out "$runs/nano-matrix"
run evaluate_world --bundle "$runs/nano-matrix" --nano "$runs/nano" --judge "$runs/judge" --strips "$runs/strips" $rides
