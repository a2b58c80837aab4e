"""A project: its settings, the file that they stand in, where its paths lead, and what is said when it is wrong."""
