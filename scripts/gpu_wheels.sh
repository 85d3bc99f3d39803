#!/usr/bin/env bash
# Collect everything that scripts/gpu_check.sh needs into one folder, on a machine with network:
#   scripts/gpu_wheels.sh FOLDER [tensorrt|tensorrt-rtx|none] [with-torch]
# Run it under the same Python version and processor as the GPU machine's. PyCUDA has no wheels: its source goes along and
# is compiled there (it needs g++ and the CUDA toolkit, which the machine has anyway).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:?usage: scripts/gpu_wheels.sh FOLDER [tensorrt|tensorrt-rtx|none] [with-torch]}
backend=${2:-none}
python=${PYTHON:-python3}
mkdir -p "$out"
"$python" -m pip --disable-pip-version-check wheel --wheel-dir "$out" . numpy setuptools wheel pip pytest hypothesis pytools platformdirs mako
"$python" -m pip --disable-pip-version-check download --no-deps --no-binary pycuda --dest "$out" 'pycuda>=2024.1'
[ "$backend" = none ] || "$python" -m pip --disable-pip-version-check wheel --wheel-dir "$out" "$backend"
[ "${3:-}" = with-torch ] && "$python" -m pip --disable-pip-version-check wheel --wheel-dir "$out" torch onnx onnxsim onnxscript safetensors
echo "$(find "$out" -type f | wc -l) files in $out; on the GPU machine: scripts/gpu_check.sh --wheels $out --bundle BUNDLE"
