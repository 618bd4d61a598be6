"""What a message and its files are: facts, never judgements."""
