"""What is known of programs, and how: traced, replayed, lifted, run, compared."""
