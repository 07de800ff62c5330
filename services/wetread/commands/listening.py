"""The socket a server answers at."""

from __future__ import annotations

import socket
from typing import Final

from wetread.settings import Settings

_BACKLOG: Final = 1024


def listen(settings: Settings) -> socket.socket:
    """Return the listening socket of the address that *settings* name. Raises OSError when it cannot be had.

    Accepted connections inherit TCP_NODELAY: of a socket handed over, the event loop does not know that it is TCP.
    Without it the last packet of some answers waits 40 ms for the acknowledgement of the packet before.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
