"""The report section of each task; `registry.TASK_PAGES` lists them."""
