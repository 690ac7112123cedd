"""Collectors: where a model meets a problem; no gradients."""
