#!/bin/sh
# Trains i2v-nano as checkpoints/i2v-nano.md describes, from a folder of videos without masks:
#   sh train_nano.sh VIDEOS [WORK]
# Everything goes to WORK (default logs/i2v-nano). Finished stages are skipped; a stage that was stopped is resumed.
set -eu

videos=${1:?"usage: sh train_nano.sh VIDEOS [WORK]"}
work=${2:-logs/i2v-nano}
python=${PYTHON:-python3}
case $videos in /*) ;; *) videos=$PWD/$videos ;; esac
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1

frames=$work/footage cutouts=$work/cutouts
if [ ! -d "$cutouts" ]; then
    "$python" -m train.scripts.extract_sav_frames --input "$videos" --output "$frames" --every 1 --short-side 288
    "$python" -m train.scripts.make_cutouts --input "$frames" --output "$cutouts.part" --every 16
    mv "$cutouts.part" "$cutouts"
fi

stage() { # NAME LAST_STEP overrides: does nothing if the stage has reached its last step
    name=$1 last=$2
    shift 2
    "$python" -m train.train -c i2v-nano-train "dataset.backgrounds=[$frames]" "dataset.cutouts=$cutouts" \
        "launcher.experiment_log_dir=$work/$name" "trainer.stop_after=$last" "$@"
}

# 1. Mask prompts only, at half the resolution, with local memory attention: objects move little between frames.
stage 1 387 trainer.checkpoint.initial=local dataset.num_videos=5600 scratch.num_frames=3 dataset.background_prob=0.6 \
    +dataset.settings.min_radius=0.2 +dataset.settings.max_radius=0.9 \
    scratch.base_lr=1.0e-3 scratch.vision_lr=1.0e-3 \
    trainer.optim.lr.trunk.end_fraction=0.4 trainer.optim.lr.rest.end_fraction=0.4 \
    trainer.prompts.prob_to_use_pt_input_for_train=0 trainer.prompts.num_init_cond_frames_for_train=1 \
    trainer.prompts.num_frames_to_correct_for_train=1

large="scratch.resolution=256 scratch.train_batch_size=3 +trainer.loss.all.mask_stride=2 dataset.background_prob=0.7
    +dataset.settings.min_radius=0.15 +dataset.settings.max_radius=0.9"

# 2. All prompts, with twice the resolution.
# shellcheck disable=SC2086
stage 2 507 $large "trainer.checkpoint.initial=$work/1/checkpoints/checkpoint.pt" dataset.num_videos=9000 \
    scratch.base_lr=7.0e-4 scratch.vision_lr=7.0e-4 \
    trainer.optim.lr.trunk.end_fraction=0.3 trainer.optim.lr.rest.end_fraction=0.3 \
    trainer.prompts.prob_to_use_pt_input_for_train=0.4

fast="+dataset.settings.min_speed=0.03 +dataset.settings.max_speed=0.9 +dataset.settings.min_pace=2
    +dataset.settings.max_pace=10 +dataset.settings.max_pan=0.4"

# 3. Faster scenes, for which memory attention is initialized again by similarity; the learning rate decays to its end.
# shellcheck disable=SC2086
stage 3 1191 $large "trainer.checkpoint.initial=$work/2/checkpoints/checkpoint.pt" trainer.checkpoint.similarity=0.85 \
    trainer.seed_value=5 dataset.num_videos=7500 \
    $fast scratch.base_lr=5.0e-4 scratch.vision_lr=5.0e-4 \
    trainer.optim.lr.trunk.end_fraction=0.02 trainer.optim.lr.rest.end_fraction=0.02 \
    trainer.prompts.prob_to_use_pt_input_for_train=0.25 trainer.prompts.num_init_cond_frames_for_train=1 \
    trainer.prompts.num_correction_pt_per_frame=1

mixed="data=synthetic_mix scratch.resolution=256 scratch.image_batch_size=8 +trainer.loss.all.mask_stride=2
    +dataset.settings.max_radius=1.15 +dataset.settings.min_area=0.004 +dataset.settings.in_place=0.2 $fast
    scratch.base_lr=6.0e-4 scratch.vision_lr=5.0e-4
    trainer.optim.lr.trunk.end_fraction=0.02 trainer.optim.lr.rest.end_fraction=0.02
    trainer.prompts.prob_to_use_pt_input_for_train=0.2 trainer.prompts.num_init_cond_frames_for_train=1
    trainer.prompts.num_correction_pt_per_frame=1"

# 4. Larger objects in equally fast scenes, and single images between the clips to learn clicks and boxes.
# shellcheck disable=SC2086
stage 4 2200 $mixed "trainer.checkpoint.initial=$work/3/checkpoints/checkpoint.pt" trainer.seed_value=6 \
    +dataset.settings.min_radius=0.25 scratch.train_batch_size=3 dataset.num_videos=6600 dataset.num_images=17600

# 5. At the final resolution. The optimizer is resumed, too: the learning rate is that of a second epoch.
# shellcheck disable=SC2086
stage 5 2720 $mixed "trainer.checkpoint.resume_from=$work/4/checkpoints/checkpoint.pt" trainer.seed_value=7 \
    scratch.resolution=320 scratch.image_batch_size=5 +dataset.settings.min_radius=0.22 scratch.train_batch_size=2 \
    scratch.num_epochs=2 dataset.num_videos=1040 dataset.num_images=2600

"$python" -m train.scripts.export_checkpoint "$work/5/checkpoints/checkpoint.pt" "$work/i2v-nano.pt" --config i2v-nano-infer
