"""Logs, spans and metrics of a process, and the names of them all.

A log line never carries the text of an exception or a value of a person: exceptions are written as types and frames.
Spans cost nothing unless an OTLP endpoint is set, and a caller's trace context rides along all the same.
"""
