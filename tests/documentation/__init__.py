"""What the pages show is run, and what they say it prints is compared with what it prints."""
