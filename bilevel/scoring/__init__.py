"""Error rates, BLEU and chrF with counts and interval, and which of two systems is better. No torch at import time."""
