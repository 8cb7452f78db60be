"""Control groups through one interface, with a v2 and a v1/hybrid implementation."""
