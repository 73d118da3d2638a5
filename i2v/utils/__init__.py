"""Parts that know nothing of the model: reading video, mask arithmetic, files."""
