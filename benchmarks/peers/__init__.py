"""What Fairway is measured against, each as its own documentation has it.

Each ``*_app.py`` is a whole server, run by its path in the environment that ``NAME.txt`` pins, with the arguments that
:class:`benchmarks.peers.model.Served` reads.
"""
