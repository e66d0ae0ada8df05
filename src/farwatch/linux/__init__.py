"""System calls that Python lacks, each owning its descriptors."""
