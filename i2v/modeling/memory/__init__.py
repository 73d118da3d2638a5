"""Memory of past frames: encoding it, selecting from it, and conditioning a frame on it."""
