"""Requests that no client should send, made up from a seed: none may harm the server or those who ask it properly."""
