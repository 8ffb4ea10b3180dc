"""tfopt makes Keras models small and fast, and proves what it exports."""

__version__ = "0.1.0"
