"""What every service of the mesh shares.

Persons (their identifiers, consent, suppression and keys) have the package `people`; nothing else of the kit but `service`, the
runtime, imports it.
"""
