"""Personal data: identifiers and persons, consent, suppression, personal tables, and the keys of persons."""
