"""Diagnosis cases by seed: the fleet lives through a fault, or through nothing, and leaves its files behind."""
