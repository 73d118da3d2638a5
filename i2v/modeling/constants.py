"""Numbers that prompts, frames and masks have in common, for code that runs without PyTorch, too."""

from __future__ import annotations

# Normalized RGB, here and in all docstrings: (value / 255 - mean) / deviation, per channel.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

BACKGROUND, OBJECT, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT, PADDING = 0, 1, 2, 3, -1  # point labels
NO_OBJECT_LOGIT = -1024.0  # mask logits of an absent object
MASK_PROMPT_SCALE, MASK_PROMPT_BIAS = 20.0, -10.0  # turn a mask prompt of 0 and 1 into logits of -10 and 10
PRIOR_LIMIT = 32.0  # logits of an earlier prediction are clamped to +-32 before they go into the prompt encoder
