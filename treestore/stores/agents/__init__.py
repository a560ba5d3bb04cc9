"""What an agent does, recorded across the stores in one command."""
