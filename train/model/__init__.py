"""The model as it is trained: a clip rolled out under simulated prompts."""
