"""Differential testing: the same requests to Apache Kafka and to fastlog, their answers compared field by field.

`python -m tests.differential --help` runs it by hand; `test_differential.py` is the bounded part of the test suite.
"""
