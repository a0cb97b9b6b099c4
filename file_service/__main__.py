"""`python -m file_service` is the same as `file-service`."""

from file_service.cli import main

if __name__ == "__main__":
    main(prog_name="file-service")
