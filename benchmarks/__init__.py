"""What the pipeline costs, measured from outside on real Kafka; nothing here is a test."""
