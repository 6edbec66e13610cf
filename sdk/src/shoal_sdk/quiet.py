"""Keeps the Kafka client's log off the application's: it repeats itself several times a second.

The sender says once that Kafka is away and once that it is back. Everything the client logs in the
sender's thread goes to the logger `shoal_sdk.kafka` at DEBUG instead; other threads, which may use
the same client library for themselves, are left alone.
"""

from __future__ import annotations

import logging
import threading

_CLIENT = "aiokafka"
_LOG = logging.getLogger("shoal_sdk.kafka")


class ClientLogFilter(logging.Filter):
    """Stops what the Kafka client logs in the thread that made the filter, until removed."""

    def __init__(self) -> None:
        super().__init__()
        self.complaint = ""
        """The last warning or error held back: why Kafka is away, which its exception may not say."""
        self._thread = threading.get_ident()
        # A filter sees only what is logged on its own logger, not what children pass up.
        self._loggers = [
            logger
            for name, logger in list(logging.root.manager.loggerDict.items())
            if name.split(".")[0] in {_CLIENT, "asyncio"} and isinstance(logger, logging.Logger)
        ]
        for logger in self._loggers:
            logger.addFilter(self)

    def remove(self) -> None:
        """Let everything through again."""
        for logger in self._loggers:
            logger.removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for records of our thread, after passing them on at DEBUG."""
        if record.thread != self._thread:
            return True
        if record.levelno >= logging.WARNING:
            self.complaint = record.getMessage()
        if _LOG.isEnabledFor(logging.DEBUG):
            _LOG.debug("%s: %s", record.name, record.getMessage())
        return False
