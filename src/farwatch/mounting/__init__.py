"""A farwatch mount on this machine: its server, its agent, and who watches over them."""
