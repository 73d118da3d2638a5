#!/bin/sh
# The evaluator against vos-benchmark (SAM 2's evaluator comes from it) on one tree, with the same number of processes:
#   sh tools/evaluator_speed.sh GT PRED [PROCESSES]
# Needs `pip install vos-benchmark` in an environment of its own, whose interpreter VOS_PYTHON names. Each runs three
# times, in turn; wall times in seconds. The machine has to be quiet.
set -eu

gt=${1:?"usage: sh evaluator_speed.sh GT PRED [PROCESSES]"}
pred=${2:?"usage: sh evaluator_speed.sh GT PRED [PROCESSES]"}
processes=${3:-2}
here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
results=$(mktemp -d)
trap 'rm -r "$results"' EXIT

seconds() { # COMMAND ...
    begin=$(date +%s.%N)
    "$@" >"$results/output" 2>&1 || { cat "$results/output" >&2; exit 1; }
    awk "BEGIN { print $(date +%s.%N) - $begin }"
}

for _ in 1 2 3; do
    ours=$(seconds "${PYTHON:-python3}" -m sav_dataset.sav_evaluator --gt_root "$gt" --pred_root "$pred" -n "$processes" \
        -q --output "$results/ours.csv" --report "$results/report" --num_worst 0)
    score=$(grep -o 'J&F: [0-9.]*' "$results/output" | head -n 1)
    theirs=$(seconds "${VOS_PYTHON:?"name the interpreter that has vos-benchmark"}" -c \
        "from vos_benchmark.benchmark import benchmark; benchmark(['$gt'], ['$pred'], num_processes=$processes)")
    echo "$score: ours $ours s, vos-benchmark $theirs s, $(awk "BEGIN { print $theirs / $ours }") times as fast"
done
