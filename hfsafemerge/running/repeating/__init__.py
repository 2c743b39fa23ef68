"""The lock of a published merge, and what it is for: to make it again, and to see in what two differ."""
