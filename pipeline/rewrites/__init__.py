"""Exact rewrites of a T2T-ViT, from the official form to the deploy form that runs fast on phones."""
