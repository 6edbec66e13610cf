"""Which partition a key belongs to: the same answer as Kafka's Java client, whichever client asks."""

from __future__ import annotations

import struct

_SEED = 0x9747B28C
_MIX = 0x5BD1E995
_WORD = 0xFFFFFFFF


def murmur2(key: bytes) -> int:
    """Return the 32-bit MurmurHash2 of `key` (unsigned) with the seed of Kafka's Java client."""
    length = len(key)
    tail = length & 3
    mixed = _SEED ^ length
    for word in struct.unpack_from(f"<{length >> 2}I", key):
        word = word * _MIX & _WORD
        word = (word ^ word >> 24) * _MIX & _WORD
        mixed = mixed * _MIX & _WORD ^ word
    if tail:
        mixed = (mixed ^ int.from_bytes(key[-tail:], "little")) * _MIX & _WORD
    mixed = (mixed ^ mixed >> 13) * _MIX & _WORD
    return mixed ^ mixed >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition, 0 to `partitions` - 1, that holds every record with this key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
