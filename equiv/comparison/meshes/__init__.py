"""Ports as they run on the meshes of a case, sharded."""
