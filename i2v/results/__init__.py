"""Tracking results: exporting masks, overlays and RLE."""
