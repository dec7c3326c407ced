"""``python -m nvmet_vdev`` is the same as ``nvmet-vdev``."""

import sys

from nvmet_vdev.cli import main

if __name__ == "__main__":
    sys.exit(main())
