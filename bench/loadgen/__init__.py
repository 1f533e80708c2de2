"""The load generator: Kafka requests made ahead, sent and answered from one core by compiled code that holds no GIL.

Build it with `python -m bench.build`; `python -m bench.loadgen --help` runs it alone.
"""
