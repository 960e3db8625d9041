"""A key for each person: personal values are sealed under keys that an erasure destroys, wherever copies of the values lie.

Keys belong to names (`user:`, `wordpress:`, `email:` ...), so that nothing has to be sealed anew when users are merged or
separated: an erasure destroys the keys of all names of its person.
"""
