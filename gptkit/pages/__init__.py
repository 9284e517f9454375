"""HTML pages and JSON reports: the parts that all of them share."""
