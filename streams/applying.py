"""From a file to an applied version: planned on what is committed, then written, or refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer

from clock import Clock
from errors import ApplyConflict, DefinitionError, DefinitionMismatch, FactsMissing
from streams import committed
from streams.change_history import changes_a_day
from streams.definitions import publish, read_versions
from streams.kafka import reading
from streams.planning import Plan, plan_on_top
from streams.segments.definition import Definition
from streams.segments.versions import COMMENT_CHARACTERS_MAX, Version, Versions
from streams.steps.engine import PartitionEngine
from streams.topics import EVENTS, topic_name


class Pipeline:
    """One pipeline as its operator reaches it: bootstrap address, prefix, and how many partitions it has.

    `wall` is the clock it goes by; None: time is what Ticks in its log say.
    """

    def __init__(self, bootstrap: str, prefix: str, partitions: int, wall: Clock | None = None) -> None:
        self.bootstrap, self.prefix, self.partitions, self.wall = bootstrap, prefix, partitions, wall


async def versions_of(pipeline: Pipeline, definition: Definition, text: str) -> Versions:
    """Return the versions applied, or, while there are none, what the file says as the only one.

    Raises KafkaUnavailable, DefinitionError.
    """
    applied = await read_versions(pipeline.bootstrap, pipeline.prefix)
    own = Version(definition.version, text, definition.hash, 0, "", "not applied")
    return Versions(applied or [own])


async def make_plan(
    pipeline: Pipeline, applied: Sequence[Version], definition: Definition, text: str
) -> Plan:
    """Return what applying the definition on top of `applied`, every version there is, would do.

    On the wall clock as of now, where a partition has read its log to the end. One partition at a time is in
    memory. Raises what restoring a partition does, KafkaUnavailable.
    """
    base, epoch = (applied[-1].number, applied[-1].epoch) if applied else (0, 1)
    candidate = Version(base + 1, text, definition.hash, 0, "", "a plan", epoch=epoch)
    # Without any version there may be state all the same: of this very file, or it is refused.
    first = Version(definition.version, text, definition.hash, 0, "", "not applied")
    planned = Versions([*applied, candidate] if applied else [first])
    parts, lately = {}, Counter[str]()
    async with reading.reader(pipeline.bootstrap) as consumer:
        for number in range(pipeline.partitions):
            versions = Versions(applied or [first])
            engine = await committed.restored(
                consumer, pipeline.prefix, number, pipeline.partitions, versions
            )
            if engine.leaves:
                raise ApplyConflict(f"partition {number} still goes to epoch {epoch}; ask again in a moment")
            if pipeline.wall is not None:
                await _let_time_pass(engine, consumer, pipeline.prefix, pipeline.wall)
            parts[number] = plan_on_top(engine, versions, planned)
            rates = await changes_a_day(consumer, pipeline.prefix, number, parts[number].clock_ms)
            for dimension, rate in rates.items():
                lately[dimension] += rate  # type: ignore[assignment]  # A Counter adds up any number.
    return Plan(base, definition, parts, dict(lately), _in_force(applied))


async def _let_time_pass(
    engine: PartitionEngine, consumer: AIOKafkaConsumer, prefix: str, wall: Clock
) -> None:
    """Bring a restored partition to the wall clock, as its worker is and has not written.

    The time is taken before the end of the log, as there; what time alone changes until now is not the
    plan's. A partition that is behind stays where it is: what it has yet to read may count.
    """
    now_ms = wall.now_ms()
    end = (await reading.extent(consumer, topic_name(prefix, EVENTS), engine.partition)).end
    if engine.applied_offset < end:
        return
    while not engine.sweep(now_ms):
        engine.take()
    engine.take()


def _in_force(applied: Sequence[Version]) -> Definition | None:
    """Return what the newest version says, None when this release cannot read it."""
    try:
        return applied[-1].definition() if applied else None
    except (DefinitionError, DefinitionMismatch):
        return None


async def apply(
    pipeline: Pipeline, plan: Plan, version: Version, *, confirmed: bool, clock: Clock
) -> Version:
    """Write what was planned as the next version; workers then convert to it.

    Raises FactsMissing when facts it needs are not kept, ApplyConflict when it has to be confirmed
    and is not, or somebody else applied since it was planned.
    """
    if plan.refusals:
        raise FactsMissing("\n".join(plan.refusals))
    if plan.to_confirm() and not confirmed:
        raise ApplyConflict(
            "\n".join([*plan.to_confirm(), "if that is what you mean, apply it with --confirm"])
        )
    stamped = Version(
        version.number,
        version.yaml,
        version.hash,
        clock.now_ms(),
        version.by,
        version.comment[:COMMENT_CHARACTERS_MAX],
        version.restores,
    )
    return await publish(pipeline.bootstrap, pipeline.prefix, stamped, base=plan.base)
