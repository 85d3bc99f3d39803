#!/usr/bin/env bash
# Everything that needs a real GPU, in one command, with or without network:
#   scripts/gpu_check.sh [--wheels FOLDER] [--bundle BUNDLE] [--out FOLDER] [--no-sanitizer] [--no-benchmarks]
#
# Makes an environment of its own, runs the GPU tests, runs the kernels under compute-sanitizer where it is installed, runs
# the benchmarks, and leaves all of it in a report folder. Without network give the folder that scripts/gpu_wheels.sh made
# (nothing is downloaded then). Needs an NVIDIA driver, g++ and nvcc (PyCUDA compiles, kernels compile for this GPU). Without
# a bundle the tests make a small one, which needs torch. On a Jetson TensorRT is JetPack's own.
set -euo pipefail
wheels="" bundle="" out="gpu-report" sanitizer=1 benchmarks=1
fail() { echo "error: $1" >&2; exit 1; }
folder() { # option and what followed it: the folder's whole path
    [ -n "${2:-}" ] || fail "$1 needs a folder; see scripts/gpu_check.sh --help"
    [ -d "$2" ] || fail "$1 $2: no such folder"
    (cd "$2" && pwd)
}
while [ $# -gt 0 ]; do
    case $1 in
        --wheels) wheels=$(folder "$1" "${2:-}"); shift ;;
        --bundle) bundle=$(folder "$1" "${2:-}"); shift ;;
        --out) [ -n "${2:-}" ] || fail "--out needs a folder; see scripts/gpu_check.sh --help"; out=$2; shift ;;
        --no-sanitizer) sanitizer=0 ;;
        --no-benchmarks) benchmarks=0 ;;
        -h | --help) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) fail "unknown option '$1'; see scripts/gpu_check.sh --help" ;;
    esac
    shift
done
case $out in /*) ;; *) out=$PWD/$out ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seen=0 # any one of them: a desktop has the first, Jetsons one of the next two, WSL the last
for device in /dev/nvidia[0-9]* /dev/nvhost-gpu /dev/nvgpu /dev/dxg; do [ ! -e "$device" ] || seen=1; done
[ $seen = 1 ] || fail "no NVIDIA GPU is visible; run this on a CUDA machine"
command -v g++ >/dev/null || fail "g++ is missing; install it: apt-get install g++"
cuda=${CUDA_HOME:-/usr/local/cuda}
command -v nvcc >/dev/null || PATH="$cuda/bin:$PATH"
command -v nvcc >/dev/null || fail "nvcc is missing; install the CUDA toolkit (JetPack: apt install nvidia-cuda) or set CUDA_HOME"
[ -z "$wheels" ] || ls "$wheels" | grep -qi '^pycuda-' ||
    fail "--wheels $wheels: not a folder that scripts/gpu_wheels.sh made (no PyCUDA in it); make it on a machine with network"
mkdir -p "$out" 2>/dev/null || fail "the folder $out for the report cannot be made"
venv=.venv-gpu
site=""
[ -e /etc/nv_tegra_release ] && site=--system-site-packages # JetPack's TensorRT lies there
[ -x $venv/bin/python ] || "${PYTHON:-python3}" -m venv $site $venv
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
from=()
[ -n "$wheels" ] && from=(--no-index --find-links "$wheels")
get() { pip install --quiet "${from[@]}" "$@" || fail "pip could not install ${*: -1} (its reason stands above)"; }
get --upgrade pip setuptools wheel
get numpy pytest hypothesis pytools platformdirs mako
get --no-build-isolation -e .
if ! "$venv/bin/python" -c 'import pycuda.driver' 2>/dev/null; then
    # nvcc may be a wrapper in another folder than its headers; cuRAND is not used, and not everywhere. PyCUDA reads both
    # from a file in the home folder.
    root=$(nvcc --dryrun -x cu /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p')
    settings=$(mktemp -d)
    trap 'rm -rf "$settings"' EXIT
    printf 'CUDA_ROOT = "%s"\nCUDA_ENABLE_CURAND = False\n' "$(cd "$root" && pwd)" >"$settings/.aksetup-defaults.py"
    HOME=$settings pip install --quiet "${from[@]}" --no-build-isolation 'pycuda>=2024.1'
fi
if [ -z "$site" ]; then # one of them is enough; the tests say which is missing
    for extra in tensorrt tensorrt-rtx; do
        { [ -n "$wheels" ] && ! ls "$wheels" | grep -qi "^${extra/-/[-_]}[-_]"; } || pip install --quiet "${from[@]}" "$extra" || true
    done
fi
if [ -z "$bundle" ]; then
    "$venv/bin/python" -c 'import torch, onnx, onnxsim' 2>/dev/null || pip install --quiet "${from[@]}" torch onnx onnxsim onnxscript safetensors ||
        fail "no torch to make a bundle with; name one: --bundle FOLDER"
fi
export EDGE_AD_GPU_BUNDLE=$bundle
"$venv/bin/edge-ad" doctor --json >"$out/doctor.json"
echo "== GPU tests"
status=0
"$venv/bin/python" -m pytest tests/gpu -m gpu -p no:cacheprovider 2>&1 | tee "$out/tests.txt" || status=$?
grep -q ' passed' "$out/tests.txt" || { echo "no GPU test ran; the reasons stand in $out/tests.txt"; status=1; }
command -v compute-sanitizer >/dev/null || PATH="$PATH:$cuda/bin" # nvcc may be a wrapper in another folder
if [ $sanitizer = 1 ] && ! command -v compute-sanitizer >/dev/null; then
    echo "== compute-sanitizer is not installed: not run (the CUDA toolkit has it)" | tee "$out/sanitizer.txt"
elif [ $sanitizer = 1 ]; then
    for tool in memcheck racecheck synccheck; do
        echo "== compute-sanitizer $tool"
        compute-sanitizer --tool $tool --error-exitcode 9 "$venv/bin/python" -m pytest tests/gpu/test_kernels.py -m gpu -q \
            -p no:cacheprovider 2>&1 | tee "$out/sanitizer-$tool.txt" || status=$?
    done
fi
if [ $benchmarks = 1 ]; then
    echo "== benchmarks"
    "$venv/bin/python" benchmarks/gpu_kernels.py --json "$out/kernels.json" | tee "$out/kernels.md" || status=$?
    backend=""
    for name in tensorrt_rtx tensorrt; do ! "$venv/bin/python" -c "import $name" 2>/dev/null || backend=${name/_/-}; done
    if [ -z "$bundle" ] || [ -z "$backend" ]; then
        echo "the whole pipeline is not timed: it needs --bundle and TensorRT"
    else
        "$venv/bin/edge-ad" build-engine "$bundle" --backend $backend --precision fp16 2>&1 | tee "$out/engines.txt" &&
            "$venv/bin/python" benchmarks/gpu_pipeline.py "$bundle" --backend $backend --json "$out/pipeline.json" |
            tee "$out/pipeline.md" || status=$?
    fi
fi
echo "== report in $out, exit code $status"
exit $status
