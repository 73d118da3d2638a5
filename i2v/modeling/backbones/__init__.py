"""Backbones: image trunks and the temporal feature integrator, which turn frames into features."""
