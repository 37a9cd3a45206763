"""Images and labels as arrays: where they come from, which a run takes, how they are altered."""
