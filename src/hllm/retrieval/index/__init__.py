"""An index over the item table, with the certificate of its recall."""
