"""Clients of other services, for programs and for the command line: Telegram's Bot API (`telegram`), S3 (`s3`).

Each is imported by itself, since each brings libraries that the other has no use for.
"""
