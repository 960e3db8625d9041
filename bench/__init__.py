"""What the mesh costs: the real one beside an empty service, in one run on one machine."""
