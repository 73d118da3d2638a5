"""The network: every module that has weights, and the typed values that pass between them."""
