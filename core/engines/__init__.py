"""Engines: what scores rows against prototypes and learns them; each knows class numbers, never labels."""
