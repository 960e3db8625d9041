"""Figures of the site and the shop: facts of sessions and orders, and their totals by day."""
