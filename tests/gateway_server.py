"""A gateway process to kill: ``python -m tests.gateway_server FOLDER PORT [largest file in bytes]``."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import uvicorn
from tests.gateway_support import build


def main() -> None:
    """Serve until killed."""
    if len(sys.argv) > 3:
        limit = int(sys.argv[3])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    parts = build(Path(sys.argv[1]))
    uvicorn.run(parts.app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")


if __name__ == "__main__":
    main()
