"""Public data sets and foreign layouts, one file each."""
