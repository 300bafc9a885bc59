"""`storm serve`: an engine behind OpenAI's HTTP interface, with video."""
