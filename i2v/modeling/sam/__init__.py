"""The promptable half of the model: prompt encoder, two-way transformer, mask decoder."""
