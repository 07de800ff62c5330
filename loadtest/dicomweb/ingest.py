"""The STOW part: nine cells of batch x connections on tmpfs, two on a disk, peak memory. Fresh stores every round."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from dicomweb.instances import Place, Template
from dicomweb.load import stow
from dicomweb.servers import Server, start

BATCHES: Final = (1, 10, 100)
CONNECTIONS: Final = (1, 4, 16)
DISK_CELLS: Final = ((1, 1), (1, 16))
_WARM_UP: Final = 20
_WARM_CONNECTIONS: Final = 4
"""Not one: a server of several processes is warm when all of them are."""


def groups(run: int, batch: int, connections: int, instances: int) -> list[list[list[Place]]]:
    """Return places by connection and request: every connection sends one study, at least one request."""
    requests = max(instances // (batch * connections), 1)
    return [
        [[Place(run, at, 1, request * batch + one + 1) for one in range(batch)] for request in range(requests)]
        for at in range(connections)
    ]


def rounds(
    names: Sequence[str], orthanc: Path, *, memory: Path, disk: Path, count: int, instances: int, largest: int, say: Any
) -> list[dict[str, Any]]:
    """Run *count* rounds and return one record per cell, server and round.

    ``largest``: cells whose connections together need more instances are left out.
    """
    template = Template.ct(512)
    records: list[dict[str, Any]] = []
    for number in range(count):
        order = list(names) if number % 2 == 0 else list(reversed(names))
        cells = [(batch, at) for batch in BATCHES for at in CONNECTIONS if batch * at <= largest]
        for medium, base, chosen in (("tmpfs", memory, cells), ("disk", disk, list(DISK_CELLS))):
            servers: list[Server] = []
            try:
                for name in order:
                    servers.append(start(name, base, orthanc))
                    stow(servers[-1], template, groups(999, 1, _WARM_CONNECTIONS, _WARM_UP))
                for run, (batch, connections) in enumerate(chosen, 1):
                    for server in servers:
                        cell = stow(server, template, groups(run, batch, connections, instances))
                        found = {
                            "part": "stow",
                            "round": number,
                            "medium": medium,
                            "cell": f"{batch}x{connections}",
                            "server": server.name,
                            **cell.as_json(),
                        }
                        say(found)
                        records.append(found)
                if medium == "tmpfs":
                    for server in servers:
                        peak = {"part": "memory", "round": number, "server": server.name, "bytes": server.peak_bytes()}
                        peak["processes"] = len(server.pids())
                        say(peak)
                        records.append(peak)
            finally:
                for server in servers:
                    server.stop()
    return records
