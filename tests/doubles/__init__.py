"""Doubles of other systems' APIs: real HTTP on loopback, held to the rules of their documentation."""
