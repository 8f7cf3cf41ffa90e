"""Reports: numbers become text tables, charts and pages."""
