"""The events and outputs as bytes: stored Avro versions, how they are framed, read and written."""
