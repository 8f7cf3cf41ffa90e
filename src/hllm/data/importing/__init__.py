"""Importing reads published layouts of data sets, one file each, into two tables with the default column names."""
