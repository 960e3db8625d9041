"""Brevo: contacts, their lists and subscription, what they did, and their orders."""
