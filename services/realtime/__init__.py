"""What happens in the shop now, as streams of events, orders and figures."""
