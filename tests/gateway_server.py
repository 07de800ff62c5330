"""A gateway process to kill: ``python -m tests.gateway_server FOLDER PORT [largest file, 0: any] [policy]``."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import uvicorn
from tests.gateway_support import build

from wetread.core.tenants import DuplicatePolicy
from wetread.gateway.settings import GatewaySettings, IngestSettings


def main() -> None:
    """Serve until killed."""
    limit = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    policy: DuplicatePolicy = "replace" if "replace" in sys.argv[4:] else "reject"
    parts = build(Path(sys.argv[1]), settings=GatewaySettings(ingest=IngestSettings(duplicates=policy)))
    uvicorn.run(parts.app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")


if __name__ == "__main__":
    main()
