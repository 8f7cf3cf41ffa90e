"""An index finds an item table's best items without looking at all, and carries a certificate of its recall."""
