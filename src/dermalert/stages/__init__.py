"""The stages a user runs: each takes paths, calls the rooms below in turn, and leaves its results on disk."""
