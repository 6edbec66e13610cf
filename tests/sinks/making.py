"""Changes and members as short as tests need them, and both sinks behind one face."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import redis
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.redis import LocalRedis
from sinks.contract import Batch, Member, RebuildableSink, Watermark
from sinks.memory import MemorySink
from sinks.redis import RedisSink
from sinks.standing import Standing

APP = "test"
Values = dict[str, dict[str, str]]
"""Customer to dimension to value."""


def change(
    seq: int,
    customer: str,
    to: str | None,
    *,
    dimension: str = "rfm",
    before: str | None = None,
    epoch: int = 1,
    partition: int = 3,
    expires_at: int | None = None,
    cause: str = "event",
) -> dict[str, Any]:
    """A change as it is decoded."""
    return {
        "event_id": f"{APP}/{epoch}/{partition}/{seq}",
        "epoch": epoch,
        "partition": partition,
        "seq": seq,
        "customer_id": customer,
        "dimension": dimension,
        "change": "exited" if to is None else "moved" if before else "entered",
        "from": before,
        "to": to,
        "cause": cause,
        "effective_at": 1_000 + seq,
        "expires_at": expires_at,
    }


def batch(*changes: Mapping[str, Any], partition: int = 3) -> Batch:
    """A batch whose offset is ten times its last seq, for markers lie between."""
    return Batch(partition, changes, changes[-1]["seq"] * 10 if changes else 0)


def member(customer: str, seq: int, epoch: int = 1, **values: str) -> Member:
    """A member without a deadline."""
    return Member(customer, epoch, seq, None, values)


class Stage(Protocol):
    """A sink to be judged, what it holds, and the power to take its service away."""

    sink: RebuildableSink

    def another(self) -> RebuildableSink:
        """A second sink on the same service, as after a crash; not open."""
        ...

    def held(self, partition: int = 3) -> Values:
        """Everybody's values, as customers."""
        ...

    def listed(self, partition: int = 3) -> Values:
        """Everybody's values, as the lists of customers by value have them."""
        ...

    def announced(self) -> list[tuple[str, int]]:
        """(dimension, seq) of every change announced so far, in order."""
        ...

    def mentions(self, customer: str) -> bool:
        """Whether anything the service holds names a customer."""
        ...

    def interrupt(self) -> None:
        """Make the service answer nothing."""
        ...

    def restore(self) -> None:
        """Let it answer again, with what it held."""
        ...


class MemoryStage:
    """The sink is its own service."""

    def __init__(self) -> None:
        self.sink: MemorySink = MemorySink()

    def another(self) -> RebuildableSink:
        again = MemorySink()
        again.members, again.watermarks = self.sink.members, self.sink.watermarks
        return again

    def held(self, partition: int = 3) -> Values:
        return {name: dict(each.values) for name, each in self.sink.members.get(partition, {}).items()}

    def listed(self, partition: int = 3) -> Values:
        return self.held(partition)

    def announced(self) -> list[tuple[str, int]]:
        return [(each["dimension"], each["seq"]) for each in self.sink.announced]

    def mentions(self, customer: str) -> bool:
        return customer in repr(self.sink.members)

    def interrupt(self) -> None:
        self.sink.away = 2.5

    def restore(self) -> None:
        self.sink.away = None


class RedisStage:
    """A server frozen at will, and a reader beside the sink."""

    TIMEOUT_S = 0.5

    def __init__(self, server: LocalRedis) -> None:
        self._server = server
        self.reader = redis.Redis.from_url(server.url, decode_responses=True)
        self.reader.flushall()
        self._messages = self.reader.pubsub(ignore_subscribe_messages=True)
        self._messages.psubscribe("shoal:changes:*")
        self._messages.get_message(timeout=1.0)
        self.sink: RedisSink = RedisSink(server.url, APP, timeout_s=self.TIMEOUT_S)

    def another(self) -> RebuildableSink:
        return RedisSink(self._server.url, APP, timeout_s=self.TIMEOUT_S)

    def held(self, partition: int = 3) -> Values:
        return held_in(self.reader, APP, partition)

    def listed(self, partition: int = 3) -> Values:
        return listed_in(self.reader, APP, partition)

    def announced(self) -> list[tuple[str, int]]:
        found = []
        while (message := self._messages.get_message(timeout=0.05)) is not None:
            found.append(
                (message["channel"].removeprefix("shoal:changes:"), json.loads(message["data"])["seq"])
            )
        return found

    def mentions(self, customer: str) -> bool:
        name = customer.encode()
        with redis.Redis.from_url(self._server.url) as raw:
            return any(name in key or name in (raw.dump(key) or b"") for key in raw.scan_iter(count=1000))

    def interrupt(self) -> None:
        self._server.freeze()

    def restore(self) -> None:
        self._server.thaw()

    def close(self) -> None:
        """Let go of the reader's connections."""
        self._messages.close()
        self.reader.close()


def held_in(reader: redis.Redis, app: str, partition: int) -> Values:
    """Read every customer's hash; the fields that are no dimension are left out."""
    base = f"shoal:{{{app}:{partition}}}:c:"
    return {
        key.removeprefix(base): {
            name: value
            for name, value in reader.hgetall(key).items()
            if name not in ("epoch", "seq", "expires_at")
        }
        for key in _keys(reader, base)
    }


def listed_in(reader: redis.Redis, app: str, partition: int) -> Values:
    """Read every set; somebody in two sets of one dimension fails."""
    base = f"shoal:{{{app}:{partition}}}:m:"
    found: Values = {}
    for key in _keys(reader, base):
        dimension, value = key.removeprefix(base).split(":", 1)
        for customer in reader.smembers(key):
            assert found.setdefault(customer, {}).setdefault(dimension, value) == value
    return found


def _keys(reader: redis.Redis, base: str) -> Iterator[str]:
    """Every key below `base`; the braces of a hash tag mean nothing to a pattern."""
    return reader.scan_iter(match=f"{base}*", count=1000)


NOTHING = Watermark(0, 0, 0)
"""Of a partition nothing was ever written to."""


async def begun(stage: Stage, *members: Member, watermark: Watermark = NOTHING) -> RebuildableSink:
    """The stage's sink, open, its partition 3 known."""
    await stage.sink.open()
    await stage.sink.rebuild(3, {each.customer_id: each for each in members}, watermark)
    return stage.sink


def series(exposed: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Name of a series to its (labels, value) pairs."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(exposed):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def counted(standing: Standing) -> dict[str, float]:
    """Result to how many deliveries had it."""
    deliveries = series(standing.exposition().decode())["shoal_sink_deliveries_total"]
    return {labels["result"]: count for labels, count in deliveries}


def seqs(*numbers: int) -> Sequence[tuple[str, int]]:
    """Announcements of the dimension rfm."""
    return [("rfm", number) for number in numbers]
