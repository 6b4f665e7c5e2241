"""Fairway: the whole road from a trained model to a live, watched service, under one gate."""
