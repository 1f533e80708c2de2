"""Settings of topics and of the broker under Kafka's names: what there is, what a value may be, and which of several counts."""
