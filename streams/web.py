"""What a worker answers over HTTP: metrics, whether it lives and is ready, and one customer at a time.

There is no authentication: whoever reaches the address can look up customers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from aiohttp import web

from clock import Clock
from streams import explanation, explanation_report, readings
from streams.app import ShoalApp, owner_url
from streams.customer_card import as_json, card_of, partition_of
from streams.kafka.broker_clock import BrokerClock
from streams.segments.versions import Versions
from streams.steps.engine import PartitionEngine
from streams.topics import EVENTS
from web_address import WebAddress, said

CUSTOMER_BYTES_MAX = 256


@dataclass(frozen=True, slots=True)
class Worker:
    """What the answers are made from; `partitions` is how many `events` has."""

    app: ShoalApp
    versions: Versions
    clock: Clock
    partitions: int
    broker: BrokerClock | None = None

    def exposition(self) -> bytes:
        """Return the counts and gauges of this worker."""
        gauges = readings.readings(self.app, self.versions.newest.definition, self.clock, self.broker)
        return self.app.owner.progress.metrics.exposition(gauges)

    def problems_of_life(self) -> list[str]:
        """Return why the worker should be started anew."""
        return readings.problems_of_life(self.app)

    def problems_of_readiness(self) -> list[str]:
        """Return why not every partition it should serve is served."""
        return readings.problems_of_readiness(self.app)


_Answer = Callable[[Worker, PartitionEngine, str], Awaitable[dict[str, Any] | None]]


async def _card(worker: Worker, engine: PartitionEngine, customer_id: str) -> dict[str, Any] | None:
    card = card_of(engine, customer_id)
    return None if card is None else as_json(card)


async def _explained(worker: Worker, engine: PartitionEngine, customer_id: str) -> dict[str, Any] | None:
    # Everything of the table is read before the log of changes is, while others get their turn.
    found = explanation.explained_by(engine, customer_id)
    if found is None:
        return None
    prefix = worker.app.events_topic.removesuffix(f".{EVENTS}")
    return explanation_report.as_json(await explanation.with_changes(worker.app.bootstrap, prefix, found))


class Web(WebAddress[Worker]):
    """The worker's web address: bound before the worker joins the group; `url` is for other workers."""

    def __init__(self, host: str, port: int, url: str = "") -> None:
        super().__init__(host, port, url, what="worker")

    def _add_routes(self, router: web.UrlDispatcher) -> None:
        # First, for the other takes everything; a slash within an id comes as %2F.
        router.add_get("/customers/{id:.+}/explain", self._explain)
        router.add_get("/customers/{id:.+}", self._customer)

    async def _customer(self, request: web.Request) -> web.Response:
        """One customer as it is."""
        return await self._answer(request, "", _card)

    async def _explain(self, request: web.Request) -> web.Response:
        """One customer, and why it is so."""
        return await self._answer(request, "/explain", _explained)

    async def _answer(self, request: web.Request, suffix: str, answer: _Answer) -> web.Response:
        """What is to be said of one customer, from the table of its owner: what is applied, committed or not.

        Whoever asks the wrong worker is redirected once, by what the group's latest assignment
        says; in the middle of a rebalance that can be wrong, and is a 503.
        """
        customer_id, worker = request.match_info["id"], self.watched
        if worker is None:
            return self._starting()
        if not 1 <= len(customer_id.encode(errors="replace")) <= CUSTOMER_BYTES_MAX:
            return said(400, f"a customer id has 1 to {CUSTOMER_BYTES_MAX} bytes of UTF-8")
        number = partition_of(customer_id, worker.partitions)
        partition = worker.app.owner.partitions.get(number)
        if partition is None:
            path = f"/customers/{quote(customer_id, safe='')}{suffix}"
            return self._elsewhere(worker, number, path, "redirected" in request.query)
        if not partition.running or not isinstance(partition.engine, PartitionEngine):
            return said(503, f"partition {number} is {partition.state}")
        found = await answer(worker, partition.engine, customer_id)
        if found is None:
            return said(404, f"nothing is known of customer {customer_id!r}")
        return web.json_response(found)

    def _elsewhere(self, worker: Worker, number: int, path: str, redirected: bool) -> web.Response:
        owner = owner_url(worker.app, number)
        if owner is None or redirected or owner == self.url:
            return said(503, f"partition {number} is changing hands")
        place = f"{owner}{path}?redirected=1"
        return web.json_response(
            {"partition": number, "owner": owner}, status=307, headers={"Location": place}
        )
