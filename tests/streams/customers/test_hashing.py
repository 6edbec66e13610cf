"""murmur2 is Java's; the keyed hash depends on all bytes, the length and the key."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.customers.facts import Strings
from streams.customers.hashing import KeyedHash, murmur2, partitions_of

TEXTS = st.lists(st.binary(max_size=70), max_size=20)


def plain_murmur2(key: bytes) -> int:
    """Kafka's Utils.murmur2, line by line, on unsigned 32-bit numbers."""
    m, bits = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(key)
    whole = len(key) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * m & bits
        k ^= k >> 24
        h = (h * m & bits) ^ (k * m & bits)
    if len(key) > whole:
        h = (h ^ int.from_bytes(key[whole:], "little")) * m & bits
    h ^= h >> 13
    h = h * m & bits
    return h ^ h >> 15


@given(TEXTS)
def test_murmur2_is_that_of_kafka(keys: list[bytes]) -> None:
    """Every length, every tail."""
    assert murmur2(Strings.from_list(keys)).tolist() == [plain_murmur2(key) for key in keys]


def test_murmur2_gives_the_values_of_kafkas_own_tests() -> None:
    """Values from UtilsTest.testMurmur2 of Apache Kafka."""
    known = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    column = Strings.from_list(known)
    assert murmur2(column).tolist() == [value & 0xFFFFFFFF for value in known.values()]
    assert partitions_of(column, 8).tolist() == [(value & 0x7FFFFFFF) % 8 for value in known.values()]


@given(TEXTS)
def test_a_hash_does_not_depend_on_the_neighbours(texts: list[bytes]) -> None:
    """A column hashes as its strings do one by one; different strings differ."""
    hashes = KeyedHash(b"key")
    whole = hashes.hash(Strings.from_list(texts)).tolist()
    assert whole == [int(hashes.hash(Strings.from_list([text]))[0]) for text in texts]
    assert len(set(whole)) == len(set(texts))


def test_padding_and_keys_count() -> None:
    """Strings that differ only in zero bytes at the end differ; so do the hashes of two keys."""
    column = Strings.from_list([b"", b"\0", b"\0" * 8, b"\0" * 9, b"x" * 5000])
    one, other = (KeyedHash(key).hash(column).tolist() for key in (b"1", b"2"))
    assert len({*one, *other}) == 10
