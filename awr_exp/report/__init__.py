"""What result files say: tables, statistics and one page. Reads files only, trains nothing, needs no torch."""
