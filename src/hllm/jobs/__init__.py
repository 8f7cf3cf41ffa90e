"""Jobs: what one does with runs. One verb is one function in one file."""
