"""The loop's verbs: each composes the parts on its left into one step, and ``run`` drives them all."""
