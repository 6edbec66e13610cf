"""Which epoch's changelog is the truth of a partition, and what is restored from which.

A rebuild replays `events` into the changelog of a next epoch. Until the owner of a partition commits
the first transaction there, the epoch before is the truth. With that transaction it also writes into the
old changelog that it left; so nobody who has not heard of the new epoch goes on with the old one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streams.customers.partition_row import PartitionRow
from streams.kafka.seam import Restoration


def rebuild_id(epoch: int) -> str:
    """Return the run id of the changes that the rebuild of an epoch makes."""
    return f"rebuild-e{epoch}"


def choose(epochs: Sequence[int], rows: Mapping[int, bytes | None]) -> Restoration | None:
    """Return what to restore a partition from; None to be shown where an older epoch stands.

    `epochs` are those there are versions of, ascending; `rows` the partition rows of the newest of them.
    """
    newest = epochs[-1]
    if len(epochs) == 1:
        return Restoration(newest)
    for epoch in sorted(rows, reverse=True):
        stored = rows[epoch]
        row = None if stored is None else PartitionRow.decode(stored)
        if epoch != epochs[0] and not is_live(row):
            continue
        if row is None:
            # Nothing was ever committed, so there is nothing to take over.
            return Restoration(newest)
        told_epoch = row.rebuilt.told_epoch if row.rebuilt is not None else None
        # What is under way there is finished first: then one version says what everybody was told.
        if epoch == newest or row.superseded_by is not None or not is_settled(row):
            return Restoration(epoch, told_epoch)
        return Restoration(newest, epoch, row.source_offset)
    return None


def is_live(row: PartitionRow | None) -> bool:
    """Whether the state of this row is, or was, the truth."""
    return row is not None and (row.rebuilt is None or row.rebuilt.live)


def is_settled(row: PartitionRow) -> bool:
    """Whether everybody's values are those of one version, of one instant, and of all facts there are."""
    whole = row.sweeping_ms <= row.clock_ms and not row.erasing
    return whole and row.converting is None and row.rebuilt is None
