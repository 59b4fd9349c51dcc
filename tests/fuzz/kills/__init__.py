"""Kills: every verb is killed at any moment, also between two renames, run again, and must end in the same bytes."""
