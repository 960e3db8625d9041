"""The transactional outbox: messages are committed with the change they report, and a relay publishes them."""
