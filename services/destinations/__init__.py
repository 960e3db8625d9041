"""Destinations: delivers what happened to systems that act on it."""
