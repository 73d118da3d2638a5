"""The network: all modules with weights, and the typed values that pass between them."""
