"""A .tflite by its bytes: read, packed, described, and what a microcontroller makes of it."""
