"""From records to changes: the customer table, the segments, and the steps that join them to Kafka."""
