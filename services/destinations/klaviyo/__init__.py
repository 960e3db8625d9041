"""Klaviyo: profiles, their subscription, and what they did."""
