"""Orders and what became of them: however often, by whom and in whatever order it is told, an order is one sale."""
