"""The kind `email`: summaries and alarms for the owner of the shop, by SMTP."""
