"""What a worker runs: each module is one agent, named for what it does."""
