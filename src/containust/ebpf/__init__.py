"""Container-scoped tracing with eBPF. Not written yet: `ctst trace` arrives with its own issue."""
