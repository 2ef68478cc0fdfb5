"""The engine beside what people have today, on one machine in one run: `tlxml-fast bench`."""
