"""The kind `slack`: alarms in a channel of Slack, or of what takes the same webhooks."""
