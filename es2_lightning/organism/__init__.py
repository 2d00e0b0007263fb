"""The built-in model organism: a tiny chat model trained from scratch on a grammar of our own."""
