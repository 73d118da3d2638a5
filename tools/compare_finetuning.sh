#!/bin/sh
# Full fine-tuning, decoder alone, memory alone and LoRA on the same clips, one after the other, on a quiet machine:
#   sh tools/compare_finetuning.sh DAVIS [WORK]
# Settings as of finetune_davis.sh. A table of J&F before and after, memory and seconds a step comes last.
set -eu

davis=${1:?"usage: sh compare_finetuning.sh DAVIS [WORK]"}
work=${2:-logs/compare-finetuning}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
for what in all decoder memory lora; do
    WHAT=$what sh "$here/finetune_davis.sh" "$davis" "$work"
done
cd "$here/.."
"${PYTHON:-python3}" tools/finetuning_table.py "$work"
