"""A real Apache Kafka on this machine from pip packages alone, for demo, tests and people."""
