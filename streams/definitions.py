"""The `definitions` topic: read, followed, and written by one at a time.

Whoever applies becomes the only writer first (a transactional id of the topic's own fences everybody
before), then reads what is there, then writes the next number. So between reading and writing nobody
else can have written, and of two who apply at once one is told that the other was first.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import uuid
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidProducerEpoch, ProducerFenced
from aiokafka.errors import KafkaError as ClientError

from clock import Clock
from errors import ApplyConflict, DefinitionError, DefinitionMismatch, KafkaUnavailable, RebuildTaken
from streams import committed
from streams.kafka import reading
from streams.segments.definition import Definition
from streams.segments.versions import Claim, Version, Versions
from streams.topics import DEFINITIONS, topic_name

log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 10.0
ATTEMPTS_MAX = 6
"""Others may fence this writer off without applying anything in the end."""
PAUSE_S = 0.1
POLL_MS = 100

RESEND_KEY = b"resend"
"""The key of the latest request to send all members again."""
REBUILD_KEY = b"rebuild"
"""The key of the latest rebuild's claim."""
OTHER_KEYS = (RESEND_KEY, REBUILD_KEY)
"""Every other key is a version's number."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the topic holds."""

    versions: list[Version]
    """Oldest first."""
    resend_run_id: str | None
    """Of the latest request to send all members again."""
    claim: Claim | None
    """The latest rebuild."""

    @property
    def base(self) -> int:
        """Number of the newest version, 0 for none."""
        return self.versions[-1].number if self.versions else 0


Record = tuple[bytes, bytes]
Written = TypeVar("Written", Version, str)
Decision = Callable[[Held], tuple[Written, Sequence[Record]]]
"""From what is there to what to return and what to write, all of it at once; asked again when it is not sure
that it was written."""


async def read_versions(bootstrap: str, prefix: str) -> list[Version]:
    """Return every version that was applied, oldest first. Raises KafkaUnavailable, DefinitionError."""
    return (await read_held(bootstrap, prefix)).versions


async def read_held(bootstrap: str, prefix: str) -> Held:
    """Return everything the topic holds. Raises KafkaUnavailable, DefinitionError."""
    topic = topic_name(prefix, DEFINITIONS)
    async with (
        reading.reader(bootstrap) as consumer,
        aclosing(reading.committed_rows(consumer, topic, 0)) as rows,
    ):
        latest = {key: value async for key, value in rows}
    found = (Version.decode(v) for key, v in latest.items() if v is not None and key not in OTHER_KEYS)
    asked, claimed = latest.get(RESEND_KEY), latest.get(REBUILD_KEY)
    return Held(
        sorted(found, key=lambda version: version.number),
        None if asked is None else _run_id(asked),
        None if claimed is None else Claim.decode(claimed),
    )


async def publish(bootstrap: str, prefix: str, version: Version, *, base: int) -> Version:
    """Write a version behind `base`, the newest its writer knew of (0: none); return it, numbered.

    Its own number counts only for the very first; its epoch is that of the newest. Raises ApplyConflict,
    saying who was first, when `base` is not the newest any more or somebody rebuilds; KafkaUnavailable.
    """
    tried: Version | None = None

    def decide(held: Held) -> tuple[Version, Sequence[Record]]:
        nonlocal tried
        newest = held.versions[-1] if held.versions else None
        if tried is not None and tried in held.versions:
            # The answer to our own commit was lost, the commit was not; others may have applied since.
            return tried, ()
        if held.base != base:
            raise ApplyConflict(_first(newest, base))
        if held.claim is not None and held.claim.state == "running":
            raise ApplyConflict(_rebuilds(held.claim))
        tried = version if newest is None else replace(version, number=base + 1, epoch=newest.epoch)
        return tried, [(tried.key, tried.encode())]

    return await _decided(bootstrap, prefix, decide)


async def claim_rebuild(bootstrap: str, prefix: str, version: Version, *, base: int) -> Version:
    """Reserve the number behind `base` and a next epoch for the rebuild of a version; return it with both.

    One of the same content that is under way is returned instead: whoever comes later goes on with it.
    Raises ApplyConflict when `base` is not the newest any more or another is rebuilt; KafkaUnavailable.
    """

    def decide(held: Held) -> tuple[Version, Sequence[Record]]:
        claim = held.claim
        if claim is not None and claim.state == "running":
            if claim.version.hash != version.hash:
                raise ApplyConflict(_rebuilds(claim))
            return claim.version, ()
        if held.base != base:
            raise ApplyConflict(_first(held.versions[-1] if held.versions else None, base))
        epochs = [each.epoch for each in held.versions] + ([] if claim is None else [claim.version.epoch])
        mine = replace(version, number=base + 1, epoch=1 + max(epochs, default=1))
        return mine, [(REBUILD_KEY, Claim(mine).encode())]

    return await _decided(bootstrap, prefix, decide)


async def publish_rebuild(bootstrap: str, prefix: str, claimed: Version, clock: Clock) -> Version:
    """Make what was claimed and is rebuilt the newest version; workers then go to its epoch.

    Raises RebuildTaken when another published it already or it was abandoned; KafkaUnavailable.
    """
    tried: Version | None = None

    def decide(held: Held) -> tuple[Version, Sequence[Record]]:
        nonlocal tried
        if tried is not None and tried in held.versions:
            # The answer to our own commit was lost, the commit was not.
            return tried, ()
        check_claim(held, claimed)
        tried = replace(claimed, applied_at_ms=clock.now_ms())
        return tried, [(tried.key, tried.encode()), (REBUILD_KEY, Claim(tried, "published").encode())]

    return await _decided(bootstrap, prefix, decide)


async def abandon_rebuild(bootstrap: str, prefix: str) -> Version:
    """Give up the rebuild under way, whoever runs it; return what it was to be. Raises RebuildTaken."""

    def decide(held: Held) -> tuple[Version, Sequence[Record]]:
        claim = held.claim
        if claim is None or claim.state == "published":
            raise RebuildTaken("there is no rebuild to abandon")
        return claim.version, [(REBUILD_KEY, Claim(claim.version, "abandoned").encode())]

    return await _decided(bootstrap, prefix, decide)


def check_claim(held: Held, claimed: Version) -> None:
    """Raise RebuildTaken unless this rebuild is still under way."""
    claim = held.claim
    if claim is None or claim.version.epoch != claimed.epoch or claim.state != "running":
        state = "gone" if claim is None or claim.version.epoch != claimed.epoch else claim.state
        raise RebuildTaken(f"the rebuild of epoch {claimed.epoch} is {state}; look at `shoal history`")


async def _decided(bootstrap: str, prefix: str, decide: Decision[Written]) -> Written:
    """Become the only writer, show what is there, write what is decided; again, if that may have failed."""
    for attempt in range(ATTEMPTS_MAX):
        async with AsyncExitStack() as stack:
            producer = await _only_writer(bootstrap, prefix, stack)
            written, records = decide(await read_held(bootstrap, prefix))
            if not records:
                return written
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT_S), producer.transaction():
                    for key, value in records:
                        topic = topic_name(prefix, DEFINITIONS)
                        await producer.send_and_wait(topic, value, key=key, partition=0)
            except (ProducerFenced, InvalidProducerEpoch):
                log.info("somebody else applies at this moment")
            except (ClientError, TimeoutError, OSError) as error:
                # Whether it was committed is seen by whoever is the only writer next: this one, again.
                log.info("applying: %r", error)
            else:
                return written
        await asyncio.sleep(PAUSE_S * (1 + attempt + random.random()))
    raise ApplyConflict("others applied at the same time, again and again; look at `shoal history`")


async def request_resend(bootstrap: str, prefix: str, clock: Clock, by: str) -> str:
    """Ask every worker to send all members again; return the run's id.

    That is another's when somebody asked at the same time, so that nobody is sent twice. Raises
    ApplyConflict when others write again and again; KafkaUnavailable.
    """
    run_id, requested_ms = uuid.uuid4().hex, clock.now_ms()
    request = json.dumps({"run_id": run_id, "requested_at_ms": requested_ms, "by": by}).encode()
    tried, before = False, None

    def decide(held: Held) -> tuple[str, Sequence[Record]]:
        nonlocal tried, before
        latest = held.resend_run_id
        if tried and latest is not None and latest != before:
            # Ours, of which the answer was lost; or another's, which sends everybody from now on too.
            return latest, ()
        tried, before = True, latest
        return run_id, [(RESEND_KEY, request)]

    return await _decided(bootstrap, prefix, decide)


def _run_id(value: bytes) -> str:
    try:
        return str(json.loads(value)["run_id"])
    except (ValueError, KeyError, TypeError) as error:
        raise DefinitionError([f"definitions: a request to resend cannot be read: {error!r}"]) from error


async def in_force(
    bootstrap: str, prefix: str, partitions: int, clock: Clock, file: tuple[Definition, str], by: str
) -> Versions:
    """Return the versions a worker goes by; with none applied yet, its own file becomes the first.

    `file` is what SHOAL_DEFINITIONS says, read and as text. Raises DefinitionMismatch when there is
    state that another definition built; what else `read_versions` and `publish` raise.
    """
    definition, text = file
    held = await read_held(bootstrap, prefix)
    versions = held.versions
    if not versions:
        number = await _number_of_state(bootstrap, prefix, partitions, definition)
        first = Version(number, text, definition.hash, clock.now_ms(), by, "the first worker's own file")
        try:
            versions = [await publish(bootstrap, prefix, first, base=0)]
        except ApplyConflict:
            # Another worker, or a person, was first.
            versions = await read_versions(bootstrap, prefix)
    newest = versions[-1]
    if newest.hash != definition.hash:
        log.warning(
            "SHOAL_DEFINITIONS is not what runs: definition %d is, applied %s by %s; to run the file,"
            " `shoal apply` it; to have what runs as a file, `shoal history --show %d`",
            newest.number,
            when(newest.applied_at_ms),
            newest.by,
            newest.number,
        )
    known = Versions(versions)
    known.resend_run_id = held.resend_run_id
    return known


class DefinitionFeed:
    """Follows the topic from its beginning; holds one connection. Not for use by two tasks at once."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._bootstrap, self._topic = bootstrap, topic_name(prefix, DEFINITIONS)
        self._stack = AsyncExitStack()
        self._consumer: AIOKafkaConsumer | None = None
        self.resend_run_id: str | None = None
        """The latest request seen."""

    async def news(self) -> Sequence[Version]:
        """Return versions not returned since the connection was made; note a request to resend.

        Raises KafkaUnavailable, DefinitionError.
        """
        where = TopicPartition(self._topic, 0)
        try:
            if self._consumer is None:
                await self._connect(where)
            assert self._consumer is not None, "connected"
            fetched = await self._consumer.getmany(where, timeout_ms=POLL_MS)
        except (ClientError, OSError) as error:
            raise KafkaUnavailable(f"following {self._topic}: {error!r}") from error
        records = [record for record in fetched.get(where, ()) if record.value is not None]
        for record in records:
            if record.key == RESEND_KEY:
                self.resend_run_id = _run_id(record.value)
        return [Version.decode(record.value) for record in records if record.key not in OTHER_KEYS]

    async def _connect(self, where: TopicPartition) -> None:
        opened = await self._stack.enter_async_context(reading.reader(self._bootstrap))
        opened.assign([where])
        await opened.seek_to_beginning(where)
        self._consumer = opened

    async def close(self) -> None:
        """Let go of the connection; the next question opens another and begins anew."""
        self._consumer = None
        await self._stack.aclose()


def when(at_ms: int) -> str:
    """Return an instant as people read it."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


async def _only_writer(bootstrap: str, prefix: str, stack: AsyncExitStack) -> AIOKafkaProducer:
    """Return a producer that shut everybody else out; stopped with the stack. Raises KafkaUnavailable."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        transactional_id=topic_name(prefix, DEFINITIONS),
        request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000),
    )
    stack.push_async_callback(lambda: reading.close_quietly(producer.stop(), "the producer of definitions"))
    try:
        await asyncio.wait_for(producer.start(), REQUEST_TIMEOUT_S)
    except (ClientError, TimeoutError, OSError) as error:
        raise KafkaUnavailable(f"becoming the only writer of definitions: {error!r}") from error
    return producer


async def _number_of_state(bootstrap: str, prefix: str, partitions: int, definition: Definition) -> int:
    """Return the number the first version must have: that of the state, if there is any."""
    rows = await committed.partition_rows(bootstrap, prefix, partitions)
    for number, row in sorted(rows.items()):
        if row.definition_hash != definition.hash:
            raise DefinitionMismatch(
                f"partition {number}: built by definition {row.definition_version}"
                f" ({row.definition_hash[:12]}), which the definitions topic lacks, and this file is another"
                f" ({definition.hash[:12]}); start a worker with that one once, then `shoal apply` this"
            )
    return max((row.definition_version for row in rows.values()), default=definition.version)


def _first(newest: Version | None, base: int) -> str:
    if newest is None:
        return f"definition {base} is not on the topic any more"
    said = f": {newest.comment}" if newest.comment else ""
    return (
        f"{newest.by} was first: definition {newest.number} was applied {when(newest.applied_at_ms)}{said};"
        " see what it says, then plan and apply on top of it"
    )


def _rebuilds(claim: Claim) -> str:
    version = claim.version
    said = f": {version.comment}" if version.comment else ""
    return (
        f"{version.by} rebuilds definition {version.number} since {when(version.applied_at_ms)}{said};"
        " wait for it, or `shoal rebuild --abandon` it"
    )
