"""One file per task: how its truth is read, what a model is asked, and which metrics follow."""
