"""The promptable half of the model, as in SAM: prompt encoder, two-way transformer, mask decoder."""
