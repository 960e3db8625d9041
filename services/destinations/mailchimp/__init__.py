"""Mailchimp: the members of an audience, and the orders of a store."""
