"""A DIMSE edge process to kill: ``python -m tests.dimse_server FOLDER`` prints its port."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.dimse_support import edge


def main() -> None:
    """Serve until killed."""
    with edge(Path(sys.argv[1])) as running:
        print(running.port, flush=True)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main()
