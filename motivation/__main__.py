"""``python -m motivation``: the command line, as ``torchrun -m motivation`` starts it."""

from motivation.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
