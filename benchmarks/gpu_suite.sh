#!/usr/bin/env bash
# Tests and timings on a machine with an NVIDIA GPU: one command, no install, no network, at most 8 minutes. What is
# missing is skipped, and said; what fails or hangs is stopped, and the rest goes on. Results are written as they come.
#   PYTHON=python3 OUT=benchmarks/results DEVICE=cuda BUDGET_S=460 PARTS="weights model" bash benchmarks/gpu_suite.sh
#   BUNDLE=nano-fp32 BUNDLE_BF16=nano-bf16    folders of nano that were exported elsewhere
# DEVICE=cpu is a dry run. The exit code is 0 where no part failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

PYTHON=${PYTHON:-python3}
OUT=${OUT:-benchmarks/results}
export PYTHONPATH="$PWD/engine:$PWD/export:$PWD/runtime:$PWD/kernels:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$OUT" || exit 1

timeout 20 nvidia-smi 2>/dev/null || echo "nvidia-smi: not here, or it does not answer"
read -r -a parts <<<"${PARTS:-}"
exec "$PYTHON" -m worldrt.benchmarks.cli gpu \
    --device "${DEVICE:-cuda}" --budget_s "${BUDGET_S:-460}" --output "$OUT" \
    ${parts[@]+--parts "${parts[@]}"} \
    ${BUNDLE:+--bundle "$BUNDLE"} ${BUNDLE_BF16:+--bundle_bf16 "$BUNDLE_BF16"}
