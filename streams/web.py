"""What a worker answers over HTTP: metrics, whether it lives and is ready, and one customer at a time.

Served from the worker's own event loop, so that an answer proves that the loop turns. There is no
authentication: whoever reaches the address can look up customers.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import quote

from aiohttp import web

import metrics
from clock import Clock
from errors import WebFailed
from streams.app import ShoalApp, owner_url
from streams.customer_card import as_json, card_of, partition_of
from streams.kafka.broker_clock import BrokerClock
from streams.readings import problems_of_life, problems_of_readiness, readings
from streams.segments.definition import Definition
from streams.segments.evaluate import Evaluator
from streams.steps.engine import PartitionEngine

log = logging.getLogger(__name__)

CLOSE_S_MAX = 1.0
"""How long the end waits for answers under way."""
CUSTOMER_BYTES_MAX = 256
RETRY_S = 1
"""What is said to those who ask for a customer nobody can show just now."""


@dataclass(frozen=True, slots=True)
class Worker:
    """What the answers are made from; `partitions` is how many `events` has."""

    app: ShoalApp
    definition: Definition
    evaluator: Evaluator
    clock: Clock
    partitions: int
    broker: BrokerClock | None = None


class Web:
    """The worker's web address: bound when entered, before the worker joins the group and is known.

    `port` 0 takes a free one. `url` is where other workers reach this one: as given, else made of
    what was bound. Entering raises WebFailed when the address cannot be bound.
    """

    def __init__(self, host: str, port: int, url: str = "") -> None:
        self._host, self._port, self.url = host, port, url
        self.worker: Worker | None = None
        """Set once there is one; until then the worker lives and is not ready."""

    async def __aenter__(self) -> Web:
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/customers/{id:.+}", self._customer)
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

    async def _metrics(self, request: web.Request) -> web.Response:
        worker = self.worker
        if worker is None:
            return _said(503, "the worker is starting")
        gauges = readings(worker.app, worker.definition, worker.clock, worker.broker)
        body = worker.app.owner.progress.metrics.exposition(gauges)
        return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _livez(self, request: web.Request) -> web.Response:
        return _health([] if self.worker is None else problems_of_life(self.worker.app))

    async def _readyz(self, request: web.Request) -> web.Response:
        starting = ["the worker is starting"]
        return _health(starting if self.worker is None else problems_of_readiness(self.worker.app))

    async def _customer(self, request: web.Request) -> web.Response:
        """One customer, from the table of the partition's owner: what is applied, committed or not.

        Whoever asks the wrong worker is redirected once, by what the group's latest assignment
        says; in the middle of a rebalance that can be wrong, and is a 503.
        """
        customer_id, worker = request.match_info["id"], self.worker
        if worker is None:
            return _said(503, "the worker is starting")
        if not 1 <= len(customer_id.encode(errors="replace")) <= CUSTOMER_BYTES_MAX:
            return _said(400, f"a customer id has 1 to {CUSTOMER_BYTES_MAX} bytes of UTF-8")
        number = partition_of(customer_id, worker.partitions)
        partition = worker.app.owner.partitions.get(number)
        if partition is None:
            return self._elsewhere(worker, number, customer_id, "redirected" in request.query)
        if not partition.running or not isinstance(partition.engine, PartitionEngine):
            return _said(503, f"partition {number} is {partition.state}")
        card = card_of(partition.engine, worker.evaluator, customer_id)
        if card is None:
            return _said(404, f"nothing is known of customer {customer_id!r}")
        return web.json_response(as_json(card))

    def _elsewhere(self, worker: Worker, number: int, customer_id: str, redirected: bool) -> web.Response:
        owner = owner_url(worker.app, number)
        if owner is None or redirected or owner == self.url:
            return _said(503, f"partition {number} is changing hands")
        place = f"{owner}/customers/{quote(customer_id, safe='')}?redirected=1"
        return web.json_response(
            {"partition": number, "owner": owner}, status=307, headers={"Location": place}
        )


def _health(problems: list[str]) -> web.Response:
    return web.json_response({"ok": not problems, "problems": problems}, status=503 if problems else 200)


def _said(status: int, error: str) -> web.Response:
    headers = {"Retry-After": str(RETRY_S)} if status == 503 else {}
    return web.json_response({"error": error}, status=status, headers=headers)


def _reachable(host: str) -> str:
    """Return a name others may reach this host by; for "every address" that is the machine's name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host or socket.gethostname()
    if address.is_unspecified:
        return socket.gethostname()
    return f"[{host}]" if address.version == 6 else host
