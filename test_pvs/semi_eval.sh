#!/bin/sh
# Score what semi_infer.sh wrote: cd test_pvs && sh semi_eval.sh
#
# Reads the same environment variables as semi_infer.sh, so that the same settings find the same masks; arguments are
# further options of sav_evaluator.py.
#
# PRED_ROOT      folder of the masks, if not at its usual place
# NUM_PROCESSES  worker processes                                  (one per core)
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

dataset=${DATASET:-sav}
name=$(basename -- "${CKPT:-sam-i2v_8gpu}" .pt)
case $dataset in sav) benchmark=SAVTest ;; *) benchmark=$dataset ;; esac
run="${OUTPUT_ROOT:-$root/test_pvs/output_semi}/${SAVE_DIR_NAME:-$name}/Semi_${benchmark}_${name}_${INPUT:-gm}"

pred=${PRED_ROOT:-$run}
if [ ! -d "$pred" ]; then
    echo "semi_eval: error: $pred: no predictions are here; make them with semi_infer.sh and the same settings" >&2
    exit 1
fi

exec "${PYTHON:-python}" "$root/sav_dataset/sav_evaluator.py" \
    --dataset "$dataset" \
    --data_root "${DATA_ROOT:-$root/data/sav_test}" \
    --pred_root "$pred" \
    ${NUM_PROCESSES:+--num_processes "$NUM_PROCESSES"} \
    "$@"
