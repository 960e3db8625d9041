"""What a service holds of persons: declared once, shown, erased and let go of when it is too old."""
