"""Jobs are what one does with runs: one verb is one function in one file."""
