"""Removes personal data from the texts of a request: e-mail addresses anywhere, and what URLs reveal of their visitor.

A text is free unless its proto says otherwise: an e-mail address in it, however encoded, becomes `redacted`. Of a URL's parameters
those keep their values that are known to identify nobody; an unlisted parameter loses its value, not its name.
"""
