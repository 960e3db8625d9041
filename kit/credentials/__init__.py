"""What processes of the mesh prove themselves with: secrets in files, and certificates."""
