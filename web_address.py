"""The address a process answers HTTP at: its metrics, whether it lives, and whether it is ready.

Served from the process's own event loop, so that an answer proves that the loop turns. There is
no authentication.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from aiohttp import web

import metrics
from errors import WebFailed

log = logging.getLogger(__name__)

CLOSE_S_MAX = 1.0
"""How long the end waits for answers under way."""
RETRY_S = 1
"""What is said to those who ask for what nobody can show just now."""


class Watched(Protocol):
    """What the answers are made from."""

    def exposition(self) -> bytes:
        """Return all metrics, as text for Prometheus."""
        ...

    def problems_of_life(self) -> list[str]:
        """Return why the process should be started anew; nothing if it lives."""
        ...

    def problems_of_readiness(self) -> list[str]:
        """Return why it does not do all it should; nothing if it is ready."""
        ...


WatchedT = TypeVar("WatchedT", bound=Watched)


class WebAddress(Generic[WatchedT]):
    """A web address, bound when entered, before whatever is watched is known.

    `port` 0 takes a free one. `url` is where others reach it: as given, else made of what was
    bound. Entering raises WebFailed when the address cannot be bound.
    """

    def __init__(self, host: str, port: int, url: str = "", *, what: str = "process") -> None:
        self._host, self._port, self.url = host, port, url
        self._what = what
        self.watched: WatchedT | None = None
        """Set once there is one; until then the process lives and is not ready."""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        self._add_routes(app.router)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_S_MAX)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise WebFailed(
                f"{self._host}:{self._port} cannot be bound: {error.strerror};"
                " see SHOAL_WEB_HOST and SHOAL_WEB_PORT"
            ) from error
        port = self._runner.addresses[0][1]
        self.url = (self.url or f"http://{_reachable(self._host)}:{port}").rstrip("/")
        log.info("metrics at %s/metrics", self.url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    def _add_routes(self, router: web.UrlDispatcher) -> None:
        """Add what only this kind of process answers."""

    def _starting(self) -> web.Response:
        return said(503, f"the {self._what} is starting")

    async def _metrics(self, request: web.Request) -> web.Response:
        if self.watched is None:
            return self._starting()
        return web.Response(body=self.watched.exposition(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _livez(self, request: web.Request) -> web.Response:
        return _health([] if self.watched is None else self.watched.problems_of_life())

    async def _readyz(self, request: web.Request) -> web.Response:
        starting = [f"the {self._what} is starting"]
        return _health(starting if self.watched is None else self.watched.problems_of_readiness())


def said(status: int, error: str) -> web.Response:
    """Return an answer that says what is wrong, and when to ask again if that may help."""
    headers = {"Retry-After": str(RETRY_S)} if status == 503 else {}
    return web.json_response({"error": error}, status=status, headers=headers)


def _health(problems: list[str]) -> web.Response:
    return web.json_response({"ok": not problems, "problems": problems}, status=503 if problems else 200)


def _reachable(host: str) -> str:
    """Return a name others may reach this host by; for "every address" that is the machine's name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host or socket.gethostname()
    if address.is_unspecified:
        return socket.gethostname()
    return f"[{host}]" if address.version == 6 else host
