"""Benchmarks of the mesh against an empty service, in one run on one machine."""
