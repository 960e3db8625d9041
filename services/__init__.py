"""The services of the mesh: each folder is one, with a proto package and a database of the same name."""
