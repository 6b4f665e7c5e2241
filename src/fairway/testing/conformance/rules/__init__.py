"""The cases, by what they are about. Importing this registers all of them, in the order in which they should run."""
