"""The load generator: Kafka requests made ahead, sent and answered from one core by compiled code that holds no GIL.

`python -m fastlog.loadgen --help` runs it alone; `fastlog bench` and the comparisons in bench/ drive it.
"""
