"""Published suites of questions about images, read from the files that their authors publish."""
