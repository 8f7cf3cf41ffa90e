"""Reports turn numbers into text tables, charts and pages."""
