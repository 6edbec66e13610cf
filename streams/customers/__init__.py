"""Everything a partition knows about its customers, as columns; pure."""
