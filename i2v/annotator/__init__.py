"""The annotator: a local HTTP server and a single static page for labelling videos in the browser."""
