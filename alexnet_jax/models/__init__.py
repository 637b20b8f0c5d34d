"""The network: figure 2's layers, and what a table of them says."""
