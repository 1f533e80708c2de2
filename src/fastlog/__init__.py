"""fastlog: an event-streaming broker for bare-metal Linux that speaks the Kafka protocol."""
