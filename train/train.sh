#!/bin/sh
# Train on this machine: sh train.sh [-c CONFIG] [KEY=VALUE ...]
#   NGPUS     processes, one per GPU; default: all visible GPUs
#   PYTHON    interpreter; default: python
# The same command resumes a run that was stopped or killed.
set -eu
cd "$(dirname "$0")/.."

# Default: the published run.
case " $* " in
    *" -c "* | *" --config"*) ;;
    *) set -- -c i2v-train "$@" ;;
esac

exec "${PYTHON:-python}" -m train.train ${NGPUS:+--num-gpus "$NGPUS"} "$@"
