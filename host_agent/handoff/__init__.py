"""Hand-offs: a guest's session follows its VM from host to host."""
