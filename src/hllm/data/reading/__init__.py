"""Reading turns files of any common form into tables: it finds their separator, encoding, header and times."""
