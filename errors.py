"""Every error Shoal raises, in one tree: the class says whether trying again can help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class ShoalError(Exception):
    """The root. `retryable` is a property of the class, never of a message."""

    retryable: ClassVar[bool] = False


class SettingsError(ShoalError):
    """One or more settings are wrong; all of them are reported at once."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class DefinitionError(ShoalError):
    """segments.yaml is wrong; every problem carries its line and column, its name and what was expected."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class SchemaError(ShoalError):
    """A stored Avro schema is missing, unreadable or incompatible."""


class WebFailed(ShoalError):
    """The address a worker should answer HTTP at cannot be bound."""


class KafkaError(ShoalError):
    """Kafka answered, or failed to, in a way that concerns more than one record."""


class KafkaUnavailable(KafkaError):
    """No broker could be reached within the bounded retries."""

    retryable = True


class LocalKafkaFailed(KafkaError):
    """The Kafka this machine runs for demo and tests could not be fetched, verified or started."""


class TransactionFailed(KafkaError):
    """A step's transaction did not commit; the partition is fenced and restored."""

    retryable = True


class PartitionFenced(TransactionFailed):
    """A newer owner of the partition exists; this one must stop writing to it."""


class FetchGap(KafkaError):
    """Fetched chunks do not join up; the partition is restored and read again."""

    retryable = True


class TopicMismatch(KafkaError):
    """A topic is missing, or its partitions or policy differ from what the pipeline needs."""


class StateCorrupt(KafkaError):
    """What was restored contradicts itself; an operator must act."""


class LogTruncated(KafkaError):
    """The log no longer holds the stored offset: events were lost before they were read."""


class DefinitionMismatch(KafkaError):
    """The state was built by another definition than the one this worker holds."""


class DefinitionBehind(KafkaError):
    """The state was built by a version of the definition this worker has not read yet."""

    retryable = True


class EpochLeft(KafkaError):
    """A rebuilt epoch takes over: the partition is restored from it. No failure, and nothing is lost."""

    retryable = True


class RebuildTaken(ShoalError):
    """A rebuild goes on elsewhere, was abandoned, or is published already."""


class ApplyConflict(ShoalError):
    """Somebody else applied a version first; what was planned was planned on an older one."""


class FactsMissing(ShoalError):
    """A definition needs facts that are not kept; a rebuild from `events` would bring them."""


class TooFewCustomers(ShoalError):
    """There are not enough customers who bought to propose thresholds."""


class SinkError(ShoalError):
    """A sink could not take what it was given; nothing of it counts as delivered."""


class SinkUnavailable(SinkError):
    """The sink does not answer, or asks for patience: the same delivery may succeed later."""

    retryable = True

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message)


class SinkRejected(SinkError):
    """The sink will never take this delivery; an operator must act."""


class SinkGap(SinkError):
    """The delivery does not join up with what the sink holds, which therefore has to be resumed."""


class LocalRedisFailed(SinkError):
    """The Redis this machine runs for demo and tests could not be found or started."""


class MembershipLost(KafkaError):
    """The worker is no member of its consumer group, and would not become one by itself."""


class NameTaken(KafkaError):
    """Another worker has started under this one's name."""


class ClockSkew(KafkaError):
    """This machine's wall time is not the broker's: deadlines would come too soon or too late."""


class RecordError(ShoalError):
    """One record cannot be applied; it becomes a dead letter and the partition goes on."""


class NullValue(RecordError):
    """The record has no value."""


class UndecodableValue(RecordError):
    """The bytes are not what their schema says."""


class UnknownFingerprint(RecordError):
    """No stored schema has the fingerprint the record carries."""


class InvalidText(RecordError):
    """A text field is not valid UTF-8."""


class InvalidCustomerId(RecordError):
    """The customer id is empty or longer than 256 bytes."""


class WrongKey(RecordError):
    """The record's key is not its customer id."""


class WrongPartition(RecordError):
    """The record's key belongs to another partition."""


class InvalidField(RecordError):
    """A field decodes but its value is not allowed."""


class CurrencyWithoutRate(RecordError):
    """No rate is declared for the record's currency."""


class ApplyFailed(RecordError):
    """Applying this one record raised, twice: the record is set aside and the rest goes on."""
