"""What the mesh knows of persons: who is who, what they allow, who was erased, what is held of them, and their keys."""
