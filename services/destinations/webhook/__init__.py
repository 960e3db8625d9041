"""Webhooks: signed messages to any system, as Standard Webhooks specifies (https://www.standardwebhooks.com)."""
