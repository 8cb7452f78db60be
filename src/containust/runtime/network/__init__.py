"""Networks of a project: bridges, addresses, published ports, names."""
