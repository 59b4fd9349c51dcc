"""The forms that data comes in: rows of JSON, CSV, Parquet, WebDataset or the hub, read where they lie."""
