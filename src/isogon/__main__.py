"""``python -m isogon``."""

from isogon.cli.entry import script

if __name__ == "__main__":
    script()
