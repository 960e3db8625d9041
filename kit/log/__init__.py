"""The log: Redis Streams used as partitioned logs, and the positions, books and dead letters of those who read them.

The tables are the truth. A stream carries what is on its way: the raw log what was accepted and is not yet stored, a
topic what is stored and not yet known to every consumer.
"""
