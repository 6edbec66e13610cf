"""Where changes go beyond Kafka: one contract, one module per service, one loop that delivers."""
