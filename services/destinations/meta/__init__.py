"""Meta, by the Conversions API."""
