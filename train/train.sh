#!/bin/sh
# Train on this machine: sh train.sh [-c CONFIG] [KEY=VALUE ...]
#   NGPUS     processes, one on each GPU; default: all GPUs that are visible
#   PYTHON    interpreter; default: python
# A run that was stopped or killed goes on when the same command is given again.
set -eu
cd "$(dirname "$0")/.."

# The published run unless another config is named.
case " $* " in
    *" -c "* | *" --config"*) ;;
    *) set -- -c i2v-train "$@" ;;
esac

exec "${PYTHON:-python}" -m train.train ${NGPUS:+--num-gpus "$NGPUS"} "$@"
