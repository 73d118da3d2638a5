#!/bin/sh
# Trains the small model from packed photos (train/scripts/pack_photos.py) on one GPU:
#   sh train_nano.sh PACK [WORK]
# MINUTES of training (default 9), TRUNK: a file of ImageNet weights instead of the package's. What is done is not done
# again; a stage that was stopped goes on.
set -eu

pack=${1:?"usage: sh train_nano.sh PACK [WORK]"}
work=${2:-logs/i2v-nano}
python=${PYTHON:-python3}
case $pack in /*) ;; *) pack=$PWD/$pack ;; esac
cd "$(dirname "$0")/.."
minutes=${MINUTES:-9}

stage() { # NAME SHARE_OF_THE_MINUTES overrides
    name=$1 share=$2
    shift 2
    "$python" -m train.train -c i2v-nano-train "dataset.pack=$pack" "launcher.experiment_log_dir=$work/$name" \
        "trainer.max_minutes=$(awk "BEGIN { print $minutes * $share }")" \
        trainer.cuda.cudnn_benchmark=false trainer.cuda.allow_tf32=true +trainer.optim.optimizer.fused=true "$@"
}

# 1. Short clips at a low resolution. With 48 clips a step took 0.3 s and 12.5 GiB on an H100; 128 were not tried.
stage 1 "${SHARE_1:-0.7}" "trainer.checkpoint.initial=efficientnet_lite${TRUNK:+:$TRUNK}" \
    scratch.resolution=256 scratch.num_frames=4 "scratch.train_batch_size=${CLIPS_1:-128}" \
    "scratch.image_batch_size=${IMAGES_1:-256}" trainer.optim.lr.trunk.end_fraction=0.3 \
    trainer.optim.lr.rest.end_fraction=0.3

# 2. Longer clips at the resolution of use, from the averaged weights; the learning rate falls to its end.
stage 2 "${SHARE_2:-0.3}" "trainer.checkpoint.initial=$work/1/checkpoints/ema.pt" trainer.checkpoint.similarity=null \
    trainer.seed_value=2 scratch.resolution=320 scratch.num_frames=6 "scratch.train_batch_size=${CLIPS_2:-64}" \
    "scratch.image_batch_size=${IMAGES_2:-160}" scratch.base_lr=4.0e-4 scratch.vision_lr=4.0e-5

"$python" -m train.scripts.export_checkpoint "$work/2/checkpoints/ema.pt" "$work/i2v-nano.pt" \
    --config i2v-nano-infer
