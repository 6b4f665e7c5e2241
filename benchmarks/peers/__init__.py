"""What Fairway is measured against. Each file is a whole server of the tiny model, started by its path."""
