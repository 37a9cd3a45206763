"""What a run leaves, and who writes and reads it."""
