"""``python -m aime_gym``."""

import sys

from aime_gym.cli import main

if __name__ == "__main__":
    sys.exit(main())
