"""Consumers: each message of a stream takes effect exactly once, and what can't take effect becomes a dead letter."""
