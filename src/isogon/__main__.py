"""``python -m isogon``."""

from isogon.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
