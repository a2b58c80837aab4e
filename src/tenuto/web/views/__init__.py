"""One file per tab: each reads files, calls functions of the lower rooms, and fills a template."""
