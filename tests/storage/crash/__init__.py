"""The crash explorer: the storage runs on a disk that remembers, and comes back from every state that a crash may leave."""
