"""Where facts live: engine, tables and one repository per subject. Knows no storage and no HTTP."""
