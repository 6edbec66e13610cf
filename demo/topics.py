"""Topics for one run: fresh before it and gone after it, so that runs on one cluster never meet."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from aiokafka.errors import KafkaError as ClientError

from errors import KafkaError, KafkaUnavailable
from streams.topics import ensure_topics, wait_for_kafka

WAIT_S_MAX = 30.0


@contextlib.asynccontextmanager
async def fresh_topics(bootstrap: str, prefix: str, partitions: int) -> AsyncIterator[None]:
    """Create the pipeline's topics under `prefix`, which nobody used before; delete them on leaving.

    Raises KafkaUnavailable, or KafkaError when Kafka refuses to create or delete them; on leaving,
    the error that ended the block goes before one of ours.
    """
    await ensure_topics(bootstrap, prefix, partitions, events_retention_ms=-1, wait_s_max=WAIT_S_MAX)
    try:
        yield
    except BaseException:
        with contextlib.suppress(KafkaError):
            await _delete(bootstrap, prefix)
        raise
    else:
        await _delete(bootstrap, prefix)


async def _delete(bootstrap: str, prefix: str) -> None:
    admin = await wait_for_kafka(bootstrap, WAIT_S_MAX)
    try:
        # By prefix, for the framework makes a topic or two of its own beside ours.
        mine = [name for name in await admin.list_topics() if name.startswith((f"{prefix}.", f"{prefix}-"))]
        if mine:
            await admin.delete_topics(mine)
    except (ClientError, OSError) as error:
        raise KafkaUnavailable(f"{prefix}.* could not be deleted: {error!r}") from error
    finally:
        await admin.close()
