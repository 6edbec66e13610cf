from __future__ import annotations

from itertools import repeat
from typing import Any

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from streams.kafka import internals

NOW_MS = 1_700_000_000_000


def records_of(batch: Any) -> list[Any]:
    return [record for each in iter(MemoryRecords(bytes(batch._build())).next_batch, None) for record in each]


def test_a_full_batch_says_how_many_it_holds() -> None:
    """What did not fit is left to the next batch: each record is in exactly one, in order."""
    rows = [(b"k%d" % number, b"v" * number) for number in range(100)] + [(b"gone", None)]
    held, first, batches = [], 0, 0
    while first < len(rows):
        batch = BatchBuilder(1_000, 0, is_transactional=1)
        appended = internals.append_all(batch, rows[first:], repeat([("h", b"1")]), NOW_MS)
        assert batch.closed() and 0 < appended == batch.record_count()
        records = records_of(batch)
        assert [record.offset for record in records] == list(range(appended))
        assert {record.timestamp for record in records} == {NOW_MS}
        assert all(list(record.headers) == [("h", b"1")] for record in records)
        held += [(record.key, record.value) for record in records]
        first, batches = first + appended, batches + 1
    assert held == rows and batches > 3


def test_a_record_larger_than_a_batch_has_one_to_itself() -> None:
    """The builder takes the first record whatever its size; the broker says whether that is too large."""
    rows = [(b"k", b"v" * 2_000), (b"next", b"v")]
    assert internals.append_all(BatchBuilder(1_000, 0), rows, repeat([]), NOW_MS) == 1
