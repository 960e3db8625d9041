"""Consent, and requests of persons about their data."""
