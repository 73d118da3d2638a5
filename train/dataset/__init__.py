"""Videos with masks as batches of clips: readers, samplers, augmentations and the loader that mixes them."""
