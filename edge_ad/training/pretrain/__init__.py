"""Pretraining of the compact point encoder: masked autoencoding (Point-MAE) on procedural shapes seen as depth views.

``shapes`` draws the views, ``solids`` are the bodies in them, ``pool`` groups and
caches them, ``mae`` is the network and its losses, ``train`` the run.
Run it with ``edge-ad pretrain-points --out weights.safetensors``.
"""
