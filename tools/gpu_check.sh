#!/bin/sh
# Check a machine with a CUDA GPU, in three minutes:
#   sh tools/gpu_check.sh [FOLDER]
# Tests marked gpu, parity of CUDA and CPU masks, time per frame and peak memory. Writes FOLDER/gpu.json.
set -u
folder=${1:-build/gpu}
python=${PYTHON:-python3}
cd "$(dirname "$0")/.."
mkdir -p "$folder"
status=0
timeout 60 "$python" -m pytest -q -m gpu -p no:cacheprovider tests/test_frame_loader.py tests/train/test_mixed_loader.py || status=1
"$python" tools/gpu_check.py --json "$folder/gpu.json" || status=1
exit $status
