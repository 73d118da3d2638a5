"""What is remembered of past frames, how it is selected, and how a frame attends to it."""
