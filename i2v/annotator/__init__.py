"""The annotator: a small HTTP server on this machine and one static page, to label a video by looking and clicking."""
