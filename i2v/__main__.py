"""``python -m i2v`` is the ``i2v`` command."""

from i2v.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
