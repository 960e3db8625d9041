"""What every service of the mesh shares. Of the shop it knows its persons (`people`) and what its visits and sums are called."""
