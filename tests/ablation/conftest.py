from lab_files import project  # noqa: F401
