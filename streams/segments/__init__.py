"""What a definition says, compiled to values and deadlines; pure."""
