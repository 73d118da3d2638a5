"""What users say of an object: clicks, boxes and masks, read from their input or sampled from ground truth."""
