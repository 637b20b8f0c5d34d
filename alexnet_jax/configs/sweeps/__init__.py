"""One file for each sweep: a base, and named variants of it beside what others reported."""
