"""Training data: readers of videos with masks, samplers, augmentations and the loader that mixes data sets."""
