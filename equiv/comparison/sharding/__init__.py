"""What ports say of the sharding of their leaves, and what was found on meshes: the input of the check of it."""
