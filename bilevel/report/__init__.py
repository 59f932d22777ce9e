"""From experiment folders to RESULTS.md and one self-contained HTML page."""
