"""One step of one partition: from a fetched chunk to one transaction's worth of rows and changes."""
