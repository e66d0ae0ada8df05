"""The exported tree: nodes, open files, and the operations on them."""
