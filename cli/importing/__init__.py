"""`pmp import`: brings the history of a shop into the mesh, as its plugin would have reported it at the time."""
