"""Pictures, pages and tables of what a run has learned."""
