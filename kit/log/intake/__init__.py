"""Appending to the raw log: messages are durable before the caller is answered, and none can be lost unnoticed."""
