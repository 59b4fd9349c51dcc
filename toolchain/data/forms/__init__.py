"""The forms of data: JSON, CSV, Parquet, WebDataset and the hub, all read in place as rows."""
