"""From champion to challenger and back: what live traffic says, and what is done about it."""
