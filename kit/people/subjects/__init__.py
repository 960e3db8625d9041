"""Personal data of a service: declared once, exported, erased, and deleted when it expires."""
