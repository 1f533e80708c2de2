"""The compatibility report: what Kafka's command-line tools print for fastlog, beside what they print for Kafka.

`python -m tests.compatibility --help` runs it by hand; the tests here are the bounded part of the test suite.
"""
