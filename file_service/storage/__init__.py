"""Where bytes live: one small protocol (base.py) and its implementations. Storage knows no database and no HTTP."""
