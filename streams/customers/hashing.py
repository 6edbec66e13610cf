"""Hashes of whole string columns: a keyed 64-bit one for tables, and Kafka's murmur2 for partitions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from streams.customers.facts import Int64s, Strings, UInt64s

_WORD = 8
_KEYS_AT_FIRST = 64
_TAIL_MASKS = np.array([(1 << 8 * size) - 1 for size in range(_WORD + 1)], np.uint64)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

_MURMUR_SEED = 0x9747B28C
_MURMUR_M = np.uint32(0x5BD1E995)


def mix(values: UInt64s) -> UInt64s:
    """Scatter each 64-bit value over all bits (a bijection: the finaliser of splitmix64)."""
    mixed = values ^ (values >> np.uint64(30))
    mixed *= _MULTIPLIER_1
    mixed ^= mixed >> np.uint64(27)
    mixed *= _MULTIPLIER_2
    mixed ^= mixed >> np.uint64(31)
    return mixed


@dataclass(frozen=True, slots=True)
class Words:
    """A string column as little-endian 64-bit words, each string padded with zero bytes.

    `words` is uint64[total]; `counts` int64[n], at least 1 each; `firsts` int64[n], where each
    string's words begin; `lengths` int64[n] in bytes. Equal words and length mean equal bytes.
    """

    words: UInt64s
    counts: Int64s
    firsts: Int64s
    lengths: Int64s


def as_words(strings: Strings) -> Words:
    """Cut every string into words."""
    lengths = strings.lengths
    counts = np.maximum((lengths + (_WORD - 1)) >> 3, 1)
    ends = np.cumsum(counts)
    firsts = ends - counts
    total = int(ends[-1]) if len(ends) else 0
    begin = np.repeat(firsts, counts)
    byte = np.arange(total) - begin
    byte <<= 3
    left = np.repeat(lengths, counts) - byte
    byte += np.repeat(strings.offsets[:-1], counts)
    padded = np.zeros(len(strings.data) + _WORD, np.uint8)
    padded[: len(strings.data)] = strings.data
    # Every byte position begins a word, so one gather reads unaligned words.
    windows: UInt64s = np.ndarray((len(padded) - _WORD + 1,), "<u8", padded, 0, (1,))
    words = windows[byte] & _TAIL_MASKS[np.minimum(left, _WORD)]
    return Words(words, counts, firsts, lengths)


class KeyedHash:
    """A 64-bit hash of strings under a secret key, so that nobody can aim at one bucket.

    Not a cryptographic hash: whoever needs certainty compares the strings too.
    """

    def __init__(self, key: bytes) -> None:
        self._key = np.frombuffer(hashlib.blake2b(key, digest_size=8).digest(), np.uint64)[0]
        self._position_keys = self._make_position_keys(_KEYS_AT_FIRST)

    def hash(self, strings: Strings) -> UInt64s:
        """Return uint64[n]."""
        return self.hash_words(as_words(strings))

    def hash_words(self, words: Words) -> UInt64s:
        """Return uint64[n] for a column already cut into words."""
        if not len(words.counts):
            return np.zeros(0, np.uint64)
        longest = int(words.counts.max())
        if longest > len(self._position_keys):
            # Bounded by the longest record there can be (1 MiB).
            self._position_keys = self._make_position_keys(2 * longest)
        within = np.arange(len(words.words)) - np.repeat(words.firsts, words.counts)
        mixed = mix(words.words + self._position_keys[within])
        sums = np.add.reduceat(mixed, words.firsts)
        sums += words.lengths.view(np.uint64) * _GOLDEN
        return mix(sums)

    def _make_position_keys(self, count: int) -> UInt64s:
        """A word is mixed with a key of its position, so that order matters."""
        return mix(mix(np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN + self._key) ^ self._key)


def murmur2(strings: Strings) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """Return uint32[n]: the bits of Kafka's (Java's) murmur2 of each string."""
    lengths = strings.lengths
    starts = strings.offsets[:-1]
    padded = np.zeros(len(strings.data) + 4, np.uint8)
    padded[: len(strings.data)] = strings.data
    windows = np.ndarray((len(padded) - 3,), "<u4", padded, 0, (1,))
    hashes = lengths.astype(np.uint32) ^ np.uint32(_MURMUR_SEED)
    blocks = lengths >> 2
    for block in range(int(blocks.max(initial=0))):
        rows = np.flatnonzero(blocks > block)
        k = windows[starts[rows] + 4 * block] * _MURMUR_M
        k ^= k >> np.uint32(24)
        k *= _MURMUR_M
        hashes[rows] = (hashes[rows] * _MURMUR_M) ^ k
    rest = lengths & 3
    rows = np.flatnonzero(rest)
    tails = windows[starts[rows] + 4 * blocks[rows]] & _TAIL_MASKS[rest[rows]].astype(np.uint32)
    hashes[rows] = (hashes[rows] ^ tails) * _MURMUR_M
    hashes ^= hashes >> np.uint32(13)
    hashes *= _MURMUR_M
    hashes ^= hashes >> np.uint32(15)
    return hashes


def partitions_of(keys: Strings, partitions: int) -> Int64s:
    """Return int64[n]: the partition Kafka's default partitioner gives each key."""
    return (murmur2(keys) & np.uint32(0x7FFFFFFF)).astype(np.int64) % partitions
