"""Intake of events: accepted events are durable, stored once and accounted for."""
