"""Recipes turn samples into training documents."""
