"""The log: Redis Streams used as partitioned logs, and the offsets, books and dead letters of their consumers.

The tables are the source of truth. A stream carries messages in flight: the raw log those that were accepted and are not yet
stored, a topic those that are stored and not yet applied by every consumer.
"""
