"""Reads JSON bodies, as their senders write them, into the messages of the contracts.

Reading is as tolerant as senders are careless. An unknown field is reported, a value that can't be read is left out and reported;
only an essential field (`essential.py`) refuses its record. No report repeats a value.
"""
