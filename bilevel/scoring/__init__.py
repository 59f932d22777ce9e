"""Error rates with counts, interval and signature, and the comparison of two systems. No torch at import time."""
