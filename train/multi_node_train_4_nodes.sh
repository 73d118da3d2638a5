#!/bin/sh
# Train on several machines through torchrun: sh multi_node_train_4_nodes.sh [-c CONFIG] [KEY=VALUE ...]
#
# Either from one machine that reaches the others by ssh, with this checkout at the same path on all of them:
#   HOSTS="node1 node2 node3 node4" sh multi_node_train_4_nodes.sh dataset.root=/data
# or with the same command on each machine:
#   MASTER_ADDR=node1 sh multi_node_train_4_nodes.sh dataset.root=/data
#
#   HOSTS        machines, the first of which is the rendezvous host
#   NNODES       number of machines; default: that of HOSTS, or 4
#   MASTER_ADDR  the rendezvous host; MASTER_PORT (default 29400) has to be free there
#   RUN_ID       id of the run at the rendezvous; default i2v
#   NGPUS        processes per machine; default: all visible GPUs
#   PYTHON       interpreter; default: python
#   SSH          command that reaches a machine; default: ssh
set -eu
cd "$(dirname "$0")/.."

: "${PYTHON:=python}" "${MASTER_PORT:=29400}" "${RUN_ID:=i2v}" "${NGPUS:=gpu}" "${OMP_NUM_THREADS:=4}"

case " $* " in
    *" -c "* | *" --config"*) ;;
    *) set -- -c i2v-train "$@" ;;
esac

# Quote a word for another shell.
quote() {
    printf "'%s'" "$(printf %s "$1" | sed "s/'/'\\\\''/g")"
}

if [ -z "${MASTER_ADDR:-}" ]; then
    if [ -z "${HOSTS:-}" ]; then
        echo "set HOSTS to start on all machines, or MASTER_ADDR to start on this one" >&2
        exit 2
    fi
    count=$(echo "$HOSTS" | wc -w)
    mkdir -p logs
    rank=0
    pids=
    for host in $HOSTS; do
        command="cd $(quote "$PWD") && exec env NNODES=$count MASTER_ADDR=$(quote "${HOSTS%% *}")"
        for name in MASTER_PORT RUN_ID NGPUS PYTHON OMP_NUM_THREADS; do
            eval "value=\$$name"
            command="$command $name=$(quote "$value")"
        done
        command="$command sh train/multi_node_train_4_nodes.sh"
        for argument in "$@"; do
            command="$command $(quote "$argument")"
        done
        ${SSH:-ssh} "$host" "$command" > "logs/node_$rank.log" 2>&1 &
        pids="$pids $!"
        rank=$((rank + 1))
    done
    echo "started on $count machines; their output is in logs/node_*.log" >&2
    # shellcheck disable=SC2086
    trap 'kill $pids 2>/dev/null' INT TERM
    status=0
    for pid in $pids; do
        wait "$pid" || status=$?
    done
    exit "$status"
fi

export OMP_NUM_THREADS
exec "$PYTHON" -m torch.distributed.run \
    --nnodes="${NNODES:-4}" --nproc-per-node="$NGPUS" \
    --rdzv-backend=c10d --rdzv-endpoint="$MASTER_ADDR:$MASTER_PORT" --rdzv-id="$RUN_ID" \
    -m train.train "$@"
