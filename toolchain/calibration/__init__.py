"""The walk over calibration data: blocks run on what those before them gave, and their layers' inputs are measured."""
