"""Any file on disk -> numbered raw rows."""
