"""The runtime of a service: what the roles of a process share, what a role is composed of, and how it runs.

These are three steps. `open_resources` opens what the roles of one process share. A role's `compose` function makes a `ServiceRuntime` of
what that role has: rpcs, or none; a database, or none; a topic it publishes, or none; subscriptions; background work. Nothing is made of
what it does not have. `kit.server.serve` runs the roles together.
"""
