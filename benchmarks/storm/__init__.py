"""What the soak test is made of: a server in a process of its own, clients that behave badly, and files that are hostile."""
