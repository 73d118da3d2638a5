"""The benchmarks of tools/benchmark.py: one module each, with ``add_arguments(parser)`` and ``run(args) -> dict``.

``run`` returns {"rows": list of dicts with the same keys, ...}. The rows are printed as a table; everything is written
to the JSON file.
"""
