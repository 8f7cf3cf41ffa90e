"""Published data sets are read here, one file for each maker, into two tables with the default column names."""
