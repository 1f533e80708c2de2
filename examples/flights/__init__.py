"""A year of real flights through a broker: producer, consumer groups, a crash, a replay; every count checked against the source.

Each part is a process of its own that talks to the broker through the Kafka protocol only, as users' programs do:
producer.py sends, member.py is one member of a consumer group, late.py replays from a moment in time and writes a second topic.
__main__.py starts them, kills one, and compares.
"""
