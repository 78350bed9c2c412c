"""Whole models and what is generated with them."""
