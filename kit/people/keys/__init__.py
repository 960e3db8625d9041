"""A key for each person: personal values are sealed under keys that an erasure destroys, together with every copy of the values.

Keys belong to identifiers (`user:`, `wordpress:`, `email:` ...), so that nothing has to be sealed again when users are merged or
separated: an erasure destroys the keys of all identifiers of its person.
"""
