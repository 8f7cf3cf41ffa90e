"""Published layouts of data sets, one file each, and what turns them into two tables with the default column names."""
