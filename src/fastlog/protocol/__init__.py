"""The Kafka protocol: schema files, messages by API key and version, error codes, record batches."""
