"""Conflicts between the mesh and the shop's site about a person: what each side had, and who decided."""
