"""The kind `wordpress`: what the mesh knows of a person, in the user meta of the shop's own site."""
