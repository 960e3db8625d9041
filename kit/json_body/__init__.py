"""JSON bodies as their senders write them, read into messages as the contracts describe them.

Reading is as tolerant as senders are careless. What nobody knows is reported, what can't be read is left out and reported; only a
field that is required, an identity, a number with a fraction or a choice refuses its record. Nothing said about it repeats a value.
"""
