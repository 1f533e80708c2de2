"""Benchmarks: a compiled load generator, and fastlog side by side with Apache Kafka. See README.md beside this file."""
