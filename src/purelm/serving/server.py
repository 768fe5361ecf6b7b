"""The process that listens: its socket, and how it ends."""

from __future__ import annotations

import asyncio
import socket
from types import FrameType

import uvicorn

from purelm.errors import UserError
from purelm.serving.app import make_app
from purelm.serving.served import Served

# After the engine ended everything, what is left is to be written to clients that may not read.
_LAST_WORDS = 5.0
_TICK = 0.02


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. UserError where it cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise UserError(f"--host={host}: {error.strerror}; give an address of this machine, such as "
                        "127.0.0.1") from error
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # At once: a port that is only bound can be taken by another.
    except OSError as error:
        listening.close()
        raise UserError(f"--port={port} on {host}: {error.strerror}; give another, or 0 for a free one") from error
    return listening


def address(listening: socket.socket) -> str:
    """What to open in a browser."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Serves until SIGTERM or ctrl-C, then takes nothing new, and lets the engine finish or end what runs."""

    def __init__(self, served: Served):
        super().__init__(uvicorn.Config(
            make_app(served), log_level="warning", access_log=False, server_header=False, lifespan="off",
            ws="none", timeout_graceful_shutdown=served.drain_seconds + _LAST_WORDS))
        self._served = served

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A second signal does not wait for what runs. (uvicorn's own would raise the signal again at the end.)"""
        del sig, frame
        self._served.stopping = True
        self.force_exit, self.should_exit = self.should_exit, True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends the engine while uvicorn waits for the connections."""
        self._served.stopping = True
        draining = asyncio.create_task(self._drain())
        await super().shutdown(sockets)
        await draining

    async def _drain(self) -> None:
        """Gives what runs its time, less after a second signal; then all of it has ended."""
        served, loop = self._served, asyncio.get_running_loop()
        ends, stops = loop.time() + served.drain_seconds, []
        if served.engine is not None:
            stops = [asyncio.to_thread(served.engine.stop, served.drain_seconds)]
        stopping = asyncio.gather(*stops)
        while not (stopping.done() and not served.waiting) and loop.time() < ends and not self.force_exit:
            await asyncio.sleep(_TICK)
        served.ending.set()
        if served.engine is not None:
            await asyncio.to_thread(served.engine.stop, 0.0)
        await stopping
