"""Alerts of LLM services in the words of the tools and people that send them, and which of our runbooks answer them."""
