#!/bin/sh
# Fine-tunes i2v-nano on three clips of DAVIS as a user would their own videos, and tests it on a fourth:
#   sh tools/finetune_davis.sh DAVIS [WORK]
# DAVIS has JPEGImages/NAME and Annotations/NAME. WHAT: what is trained (all, decoder, memory or lora; default all).
# EPOCHS (default 6), TRAIN_CLIPS and HELD_OUT: names, SETTINGS: further settings of training. What is done is not done
# again. J&F before and after, memory and seconds a step are in the last lines.
set -eu

davis=${1:?"usage: sh finetune_davis.sh DAVIS [WORK]"}
work=${2:-logs/finetune-davis}
python=${PYTHON:-python3}
what=${WHAT:-all}
case $davis in /*) ;; *) davis=$PWD/$davis ;; esac
cd "$(dirname "$0")/.."
PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH

for clip in ${TRAIN_CLIPS:-hike lucia scooter-gray} ${HELD_OUT:-kite-walk}; do
    part=train
    case " ${HELD_OUT:-kite-walk} " in *" $clip "*) part=val ;; esac
    for kind in JPEGImages Annotations; do
        mkdir -p "$work/data/$part/$kind"
        [ -e "$work/data/$part/$kind/$clip" ] || cp -r "$davis/$kind/$clip" "$work/data/$part/$kind/$clip"
    done
done

run=$work/$what
# shellcheck disable=SC2086 # SETTINGS are several
set -- "dataset.root=$work/data/train" trainer.mode=train "validation.img_folder=$work/data/val/JPEGImages" \
    "validation.gt_folder=$work/data/val/Annotations" "validation.prompts=[gm,bb,1c]" "train=$what" \
    "scratch.num_epochs=${EPOCHS:-6}" trainer.val_epoch_freq=0 "launcher.experiment_log_dir=$run" ${SETTINGS:-}
"$python" -m i2v train i2v-nano-finetune "$@" --check
"$python" -m i2v train i2v-nano-finetune "$@"
weights=$run/checkpoints/best.pt
"$python" -m i2v test --input gm --ckpt "$weights" --dataset davis2016 --data_root "$work/data/val" \
    --output_root "$run/masks" --workers 1
"$python" -m i2v eval --dataset davis2016 --data_root "$work/data/val" \
    --pred_root "$run/masks/best/Semi_davis2016_best_gm" -q
echo "J&F on held-out frames by step, and the last line of training:"
cat "$run/logs/val_stats.jsonl"
tail -n 1 "$run/logs/train_stats.jsonl"
