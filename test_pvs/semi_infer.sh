#!/bin/sh
# Test a model on SA-V or another benchmark: cd test_pvs && sh semi_infer.sh
#
# Settings come from the environment, and further options of semi_infer.py from the arguments:
#   INPUT=3c CKPT=my_model DATA_ROOT=/data/sav_test GPUS=4 sh semi_infer.sh --per_object
#
# INPUT          prompt: gm true mask, bb box, 1c 3c 5c clicks     (gm)
# CKPT           checkpoints/CKPT.pt, or a path                    (sam-i2v_8gpu)
# YAML           config                                            (the one that the checkpoint is for)
# SAVE_DIR_NAME  folder of the run below OUTPUT_ROOT               (name of the checkpoint)
# DATASET        sav davis2016 davis2017 mose lvos ytvos           (sav)
# DATA_ROOT      folder of the benchmark                           (data/sav_test of this checkout)
# OUTPUT_ROOT    where masks go                                    (test_pvs/output_semi)
# GPUS, WORKERS  number of GPUs and processes                      (all GPUs, a process each; or one per CPU core)
# PYTHON         interpreter                                       (python)
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m test_pvs.semi_infer \
    --input "${INPUT:-gm}" \
    --ckpt "${CKPT:-sam-i2v_8gpu}" \
    ${YAML:+--yaml "$YAML"} \
    --dataset "${DATASET:-sav}" \
    --data_root "${DATA_ROOT:-$root/data/sav_test}" \
    --output_root "${OUTPUT_ROOT:-$root/test_pvs/output_semi}" \
    ${SAVE_DIR_NAME:+--save_dir_name "$SAVE_DIR_NAME"} \
    ${GPUS:+--gpus "$GPUS"} \
    ${WORKERS:+--workers "$WORKERS"} \
    "$@"
