"""Items to vectors, and the table that keeps them."""
