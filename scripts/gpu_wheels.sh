#!/usr/bin/env bash
# Collect everything that scripts/gpu_check.sh needs into one folder, on a machine with network:
#   scripts/gpu_wheels.sh FOLDER [tensorrt|tensorrt-rtx|none] [with-torch]
# Run it under the same Python version and processor as the GPU machine's. PyCUDA has no wheels: its source goes along and
# is compiled there (it needs g++ and the CUDA toolkit, which the machine has anyway).
set -euo pipefail
fail() { echo "error: $1; see scripts/gpu_wheels.sh --help" >&2; exit 1; }
case ${1:-} in
    -h | --help) sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    "") fail "no folder for the wheels was named" ;;
    -*) fail "unknown option '$1'" ;;
esac
backend=${2:-none}
case $backend in tensorrt | tensorrt-rtx | none) ;; *) fail "backend '$backend'; expected tensorrt, tensorrt-rtx or none" ;; esac
case ${3:-} in "" | with-torch) ;; *) fail "'$3'; expected with-torch or nothing" ;; esac
[ $# -le 3 ] || fail "more than three arguments"
python=${PYTHON:-python3}
mkdir -p "$1" 2>/dev/null || fail "the folder '$1' cannot be made"
out=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
"$python" -m pip --disable-pip-version-check wheel --wheel-dir "$out" . numpy setuptools wheel pip pytest hypothesis pytools platformdirs mako
"$python" -m pip --disable-pip-version-check download --no-deps --no-binary pycuda --dest "$out" 'pycuda>=2024.1'
[ "$backend" = none ] || "$python" -m pip --disable-pip-version-check wheel --wheel-dir "$out" "$backend"
[ "${3:-}" = with-torch ] && "$python" -m pip --disable-pip-version-check wheel --wheel-dir "$out" torch onnx onnxsim onnxscript safetensors
echo "$(find "$out" -type f | wc -l) files in $out; on the GPU machine: scripts/gpu_check.sh --wheels $out --bundle BUNDLE"
