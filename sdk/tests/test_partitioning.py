"""Keys go where the Java client puts them."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import murmur2 as client_murmur2
from hypothesis import given
from hypothesis import strategies as st

from shoal_sdk.partitioning import murmur2, partition_of

# From UtilsTest.testMurmur2 of Apache Kafka's Java client; signed there.
JAVA = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]


@pytest.mark.parametrize(("key", "expected"), JAVA)
def test_murmur2_gives_the_java_clients_answers(key: bytes, expected: int) -> None:
    """The vectors of Kafka's own tests come out."""
    assert murmur2(key) == expected % 2**32


@given(st.binary(max_size=300), st.integers(1, 1000))
def test_any_key_goes_where_the_python_client_puts_it(key: bytes, partitions: int) -> None:
    """For every length and content the answer is that of the client library, and in range."""
    assert murmur2(key) == client_murmur2(key)
    assert partition_of(key, partitions) == (client_murmur2(key) & 0x7FFFFFFF) % partitions
