"""Arguments and environment, read once: Settings; and the redactor of their secrets."""
