#!/usr/bin/env bash
# Tests and timings on a machine with a GPU: no install, no network. Every part may fail on its own; the rest goes on.
#   PYTHON=python3 OUT=benchmarks/results DEVICE=cuda bash benchmarks/gpu_suite.sh
# DEVICE=cpu is a dry run. The exit code is the number of parts that failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

PYTHON=${PYTHON:-python3}
OUT=${OUT:-benchmarks/results}
DEVICE=${DEVICE:-cuda}
export PYTHONPATH="engine:export:runtime:kernels:benchmarks${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$OUT"
failed=0

part() { # part NAME COMMAND...
    local name=$1 start=$SECONDS code
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    if "$@"; then
        printf '== %s: passed in %s s\n' "$name" $((SECONDS - start))
    else
        code=$?
        printf '== %s: FAILED with exit code %s after %s s\n' "$name" "$code" $((SECONDS - start))
        failed=$((failed + 1))
    fi
}

build_kernels() {
    command -v cmake >/dev/null || { echo "cmake is not on PATH; the kernels that are there are used"; return 1; }
    local preset=default
    command -v nvcc >/dev/null && preset=cuda
    cmake --preset "$preset" && cmake --build --preset "$preset"
}

bench() { "$PYTHON" -m worldrt.benchmarks.cli "$@" --output "$OUT"; }

export_nano() { # the console script may be absent here
    "$PYTHON" -c 'import sys; from worldrt.export.cli import main; sys.exit(main())' --model nano --output "$BUNDLE" &&
        [ -f "$BUNDLE/bundle.json" ]
}

gpu_tests() { "$PYTHON" -m pytest -m "gpu and not slow" -p no:cacheprovider -q; }

nvidia-smi 2>/dev/null || echo "nvidia-smi: not here"
"$PYTHON" -c 'import sys, torch; print(sys.version, torch.__version__, torch.cuda.is_available())' || exit 1

BUNDLE=$(mktemp -d)/nano
trap 'rm -rf "$(dirname "$BUNDLE")"' EXIT
part "build the kernels" build_kernels
part "export nano" export_nano
[ "$DEVICE" = cpu ] || part "tests" gpu_tests
for name in kernels block denoiser; do
    part "time $name" bench gpu --device "$DEVICE" --parts "$name" --bundle "$BUNDLE" --markdown "$OUT/gpu-$name.md"
done
printf '\n== %s part(s) failed; results lie in %s\n' "$failed" "$OUT"
exit "$failed"
