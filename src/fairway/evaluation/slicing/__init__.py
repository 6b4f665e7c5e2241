"""The search for weak slices: predicates over rows, their conjunctions, and the test on rows that the search did not see."""
