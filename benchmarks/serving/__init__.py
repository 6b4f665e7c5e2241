"""``make bench-serving``: what a server costs, beside the limits of the machine and the field's other servers.

The server is pinned to one core and the load generator to another. Servers are measured in heats: the members of a heat run
at the same time and take turns, round after round, and ratios are made within a round, so that what slows the machine for a
while slows both sides. Heats of peers have Fairway in them, so that each peer stands beside a Fairway of the same minute.
"""
