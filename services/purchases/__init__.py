"""Orders and their ledgers: however often, by which source and in whatever order it is reported, an order is one sale."""
