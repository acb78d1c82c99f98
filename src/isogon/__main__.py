"""``python -m isogon``."""

from isogon.cli.entry import main

if __name__ == "__main__":
    raise SystemExit(main())
