"""The terminal dashboard. Not written yet: `ctst ps --tui` arrives with its own issue."""
