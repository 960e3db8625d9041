"""Calls a mesh from Python: `channel.connect` opens a channel for the stubs of `pmp.<service>.v1`."""
