"""Exact graph rewrites: the official form of a T2T-ViT in, the deploy form that runs fast on phones out."""
