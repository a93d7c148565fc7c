"""Recipes: what programs make of keys again and again, written with the public calls of a `Database` alone.

The keys and the steps of each are in spec/recipes.md, so that clients in other languages share them. A module is
imported when a database is first asked for its recipe.
"""
