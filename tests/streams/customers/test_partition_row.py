"""The partition row is read back as it was written, and nothing else is read as one."""

from __future__ import annotations

import dataclasses

import pytest

from errors import StateCorrupt
from streams.customers.partition_row import PARTITION_ROW_KEY, PartitionRow
from streams.customers.row_format import PARTITION_ROW, RowKey, decode_key

ROW = PartitionRow(
    source_offset=12,
    clock_ms=1_700_000_000_000,
    seq=5,
    epoch=1,
    partitions=8,
    definition_version=3,
    definition_hash="ab12",
    fold_line_ms=1_600_000_000_000,
    complete_since={"orders": -1},
    fact_key=bytes(range(16)),
)


def test_it_is_read_back() -> None:
    """Every field, and the key says what it is."""
    assert PartitionRow.decode(ROW.encode()) == ROW
    assert decode_key(PARTITION_ROW_KEY) == RowKey(PARTITION_ROW, b"", 0)
    assert dataclasses.replace(ROW, seq=6).encode() != ROW.encode()


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", ROW.encode().replace(b'"format":1', b'"format":2')])
def test_anything_else_is_corrupt(value: bytes) -> None:
    """Unreadable bytes and other formats raise StateCorrupt."""
    with pytest.raises(StateCorrupt, match="partition row"):
        PartitionRow.decode(value)
