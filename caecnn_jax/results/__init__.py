"""Figures from a trained run, and its use on images."""
