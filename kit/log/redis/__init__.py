"""How the log speaks to Redis: its scripts, the connection of its appends, and a Redis Cluster."""
