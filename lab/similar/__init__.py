"""Histories of incidents whose causes are known, and how often the first similar one has the same cause."""
