"""The state of a session over a video, and all that acts on it: tracks, tracker, features, policy."""
