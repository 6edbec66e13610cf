"""Records that cannot be applied: set aside whole, one by one, and nobody beside them is touched."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from schemas.events import encode_event, encode_tick
from tests.pipeline.judging import comparable, undisturbed
from tests.pipeline.running import Pipeline, home

pytestmark = pytest.mark.kafka

DAY_MS = 86_400_000
T0 = 1_704_067_200_000
APPENDED_MS = T0 + 3_650 * DAY_MS
PARTITIONS = 2
# Everything bad goes to partition 0, so its good customers belong there too.
GOOD = [name for name in (f"good-{n}" for n in range(40)) if home(name, PARTITIONS) == 0]
STRANGER = next(name for name in (f"far-{n}" for n in range(40)) if home(name, PARTITIONS) == 1)


def purchase(customer: str, order: str, **fields: Any) -> bytes:
    """An order of 120.00."""
    content = {
        "event_id": f"event-{order}", "customer_id": customer, "occurred_at": T0, "order_id": order,
        "amount_minor": 12_000, "currency": "GBP", **fields,
    }  # fmt: skip
    return encode_event("Purchased", content)


@dataclass(frozen=True)
class Bad:
    """One record that must become a dead letter, why, and what its message must name."""

    key: bytes | None
    value: bytes | None
    error: str
    named: str


MINE, MY_KEY = GOOD[0], GOOD[0].encode()
LONG = "x" * 257
TEXT = purchase(MINE, "order-of-bad-text", event_id="of-good-text")
BAD = [
    Bad(MY_KEY, None, "NullValue", "value"),
    Bad(MY_KEY, b"", "UndecodableValue", "value"),
    Bad(MY_KEY, b'{"not": "avro"}', "UndecodableValue", "value"),
    Bad(MY_KEY, purchase(MINE, "truncated")[:-3], "UndecodableValue", "Purchased"),
    Bad(MY_KEY, purchase(MINE, "followed") + b"\x00", "UndecodableValue", "Purchased"),
    Bad(MY_KEY, b"\xc3\x01" + bytes(range(8)) + b"body", "UnknownFingerprint", "0001020304050607"),
    Bad(MY_KEY, TEXT.replace(b"order-of-bad-text", b"order-of-\xff\xfe\xfd-text"), "InvalidText", "order_id"),
    Bad(GOOD[1].encode(), purchase(MINE, "keyed-by-another"), "WrongKey", "key"),
    Bad(None, purchase(MINE, "without-key"), "WrongKey", "key"),
    Bad(b"1", encode_tick(T0 + 50 * DAY_MS), "WrongKey", "key"),
    Bad(b"", purchase("", "of-nobody"), "InvalidCustomerId", "customer_id"),
    Bad(LONG.encode(), purchase(LONG, "of-a-long-name"), "InvalidCustomerId", "customer_id"),
    Bad(MY_KEY, purchase(MINE, "in-reais", currency="BRL"), "CurrencyWithoutRate", "BRL"),
    Bad(MY_KEY, purchase(MINE, "negative", amount_minor=-1), "InvalidField", "amount_minor"),
    Bad(MY_KEY, purchase(MINE, "ahead", occurred_at=APPENDED_MS * 2), "InvalidField", "occurred_at"),
    Bad(STRANGER.encode(), purchase(STRANGER, "astray"), "WrongPartition", STRANGER),
]  # fmt: skip


def mixed() -> tuple[list[tuple[bytes | None, bytes | None]], dict[int, Bad]]:
    """A log of good orders and ticks with every bad record between two good ones; the bad by offset."""
    log: list[tuple[bytes | None, bytes | None]] = []
    bad = {}
    for n, each in enumerate(BAD):
        customer = GOOD[n % len(GOOD)]
        log.append((customer.encode(), purchase(customer, f"order-{n}", occurred_at=T0 + n * DAY_MS)))
        bad[len(log)] = each
        log.append((each.key, each.value))
        if n % 5 == 4:
            log.append((b"0", encode_tick(T0 + n * DAY_MS)))
    log.append((GOOD[0].encode(), purchase(GOOD[0], "the-last", occurred_at=T0 + 30 * DAY_MS)))
    log.append((b"0", encode_tick(T0 + 400 * DAY_MS)))
    return log, bad


async def test_bad_records_are_set_aside_and_good_neighbours_applied(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """One dead letter each, with the original and six headers; the changes are those of the good alone."""
    pipeline = await Pipeline(kafka, prefix, tmp_path, PARTITIONS).create()
    log, bad = mixed()
    began_ms = time.time_ns() // 1_000_000
    await pipeline.produce((0, key, value) for key, value in log)
    with pipeline.worker() as worker:
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
    ended_ms = time.time_ns() // 1_000_000

    letters = {p: await pipeline.records("dead-letters", p) for p in range(PARTITIONS)}
    assert letters[1] == []
    assert [(letter.key, letter.value) for letter in letters[0]] == [(b.key, b.value) for b in bad.values()]
    for letter, (offset, each) in zip(letters[0], bad.items(), strict=True):
        headers = dict(letter.headers)
        assert len(letter.headers) == len(headers)
        assert began_ms <= int(headers.pop("time")) <= ended_ms
        assert each.named in headers.pop("message").decode()
        assert headers == {
            "topic": f"{prefix}.events".encode(),
            "partition": b"0",
            "offset": b"%d" % offset,
            "error": each.error.encode(),
        }

    good = [(APPENDED_MS, *record) for offset, record in enumerate(log) if offset not in bad]
    wanted = undisturbed(good, 0, PARTITIONS)
    assert not wanted.dead_letters and {c["customer_id"] for c in wanted.changes} == set(GOOD[: len(BAD)])
    assert comparable(await pipeline.changes(0)) == comparable(wanted.changes)
    assert (await pipeline.memberships(0)).keys() == wanted.values().keys()
    assert await pipeline.mirrored() == {0: len(log)}
    assert (await pipeline.partition_row(0)).source_offset == len(log)
