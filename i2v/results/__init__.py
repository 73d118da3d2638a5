"""What is written of a tracking run: masks, run lengths, overlays."""
