"""The step that `fit` runs on a TPU, compiled by Google's own compiler where there is no TPU."""
