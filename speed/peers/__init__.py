"""What training is measured against: other libraries as their users run them, on the same task."""
