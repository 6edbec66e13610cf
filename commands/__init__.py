"""The commands of the command line that have modules of their own, and how every command starts and ends."""
