"""``python -m aime_gym.zoo``."""

import sys

from aime_gym.zoo.command import main

if __name__ == "__main__":
    sys.exit(main())
