"""A prediction service over HTTP: sessions over videos, images, and adapters for labelling tools."""
