"""Journeys: touchpoints, stages, conversions, attribution and funnels."""
